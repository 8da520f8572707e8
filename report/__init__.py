"""`train-potential report`: acceptance test of a model for MD, written as one HTML page."""
