"""Operators in two forms: reference in plain PyTorch, and compiled kernels for CPUs."""
