"""Damaged files, options and structures: each must give a clear error; see `__main__`."""
