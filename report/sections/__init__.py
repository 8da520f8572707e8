"""Sections of the acceptance report, one file each."""
