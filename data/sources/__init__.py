"""Readers of calculations: each turns a file into ASE atoms with labels, and says what it left out.

A reader is a function ``read(path, left_out)`` that yields atoms with a calculator of plain results
(eV, eV/Å, eV/Å³ positive under tension), step by step, and counts in ``left_out`` what it does not
yield. Forces are the raw ones, without constraints.
"""
