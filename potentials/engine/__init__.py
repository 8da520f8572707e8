"""Whole potentials without autograd: packed weights and one compiled step."""
