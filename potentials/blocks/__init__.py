"""Modules from which architectures are built."""
