"""Our potential and its peers trained on the same data, cores and time, then tested alike.

Light on purpose: ``predict`` and ``clock`` are imported in the environments of the peers.
"""
