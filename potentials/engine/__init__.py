"""Compiled inference of whole potentials from packed weights, without autograd."""
