"""Properties of materials from any ASE calculator; the given atoms are never changed."""
