"""The ``train-potential`` command: one file for each of its commands."""
