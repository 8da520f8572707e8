"""Interfaces between trained potentials and simulation codes, and simulations with them."""
