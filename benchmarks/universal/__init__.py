"""A published universal potential in our form, held against its original; docs/measurements/universal.md."""
