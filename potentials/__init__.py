"""Interatomic potentials and their building blocks."""
