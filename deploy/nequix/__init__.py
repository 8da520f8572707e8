"""Conversion of Nequix weights.

Nequix (Koker, Kotak and Smidt, arXiv 2508.16067; code MIT, published weights CC-BY-4.0) is a
NequIP-type network of natural parity with a norm before the gates. Splines replace its radial
networks; all other weights are copied exactly. A file with weights (.nqx) is a line of JSON and
NumPy arrays without pickles, and is read here without the package ``nequix``, which is needed only
to compare with the original.
"""
