"""Readers of calculations: each reads ASE atoms with labels from a file, and counts omissions.

A reader is a function ``read(path, left_out)`` that yields atoms with a calculator of plain results
(eV, eV/Å, eV/Å³ positive under tension), step by step, and counts in ``left_out`` what it does not
yield. Forces are the raw ones, without constraints.
"""
