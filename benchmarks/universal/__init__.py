"""Comparison of the universal potential with its original; docs/measurements/universal.md."""
