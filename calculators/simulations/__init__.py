"""Relaxation and molecular dynamics of many structures, resumed after an interruption."""
