"""Learning in rounds: explore with a model, label what it does not know, and train it again."""
