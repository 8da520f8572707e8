"""Conversion of SevenNet checkpoints.

SevenNet (Park et al., J. Chem. Theory Comput. 2024, 20, 4857; MIT licence) is a NequIP-type network
whose radial functions are small networks of the distance. Splines replace them here; all other
weights are copied exactly. ``sevenn`` itself builds the network from the checkpoint, and its
modules are read; nothing is downloaded. A checkpoint is a pickle and is opened only here.
"""
