"""Comparison with other potentials, each in its own environment."""
