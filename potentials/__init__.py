"""Energy models and the pieces they are made of."""
