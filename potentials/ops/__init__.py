"""Operators in two forms: a reference in plain PyTorch, and compiled kernels for CPUs."""
