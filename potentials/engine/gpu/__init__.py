"""Inference of whole Facet potentials on a GPU, with kernels compiled for each potential."""
