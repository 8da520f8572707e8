"""Dataset files: format, reading, writing, merging, verifying."""
