"""Comparison of our potential with its peers, trained on the same data, cores and time.

This file imports nothing: ``predict`` and ``clock`` are imported in the environments of the peers.
"""
