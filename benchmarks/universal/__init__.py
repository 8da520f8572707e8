"""The universal potential compared with its original; docs/measurements/universal.md."""
