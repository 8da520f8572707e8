"""Relaxation and molecular dynamics of many structures, which go on after an interruption."""
