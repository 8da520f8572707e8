"""A study of the architectures: what they can tell apart, and how they learn on the same data."""
