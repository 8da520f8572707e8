"""Architectures: one file each, with its configuration and its layers."""
