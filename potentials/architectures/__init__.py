"""Architectures: a file each, with its configuration and its layers."""
