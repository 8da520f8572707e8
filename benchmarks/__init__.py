"""Benchmarks, started with python -m benchmarks.NAME."""
