"""Study of the architectures: expressivity, and learning on the same data."""
