"""Sections of the acceptance report, a file each."""
