"""Damaged input files, options and structures: every one must give a clear error; see `__main__`."""
