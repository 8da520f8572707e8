"""Properties of materials from any ASE calculator; no function changes the atoms it is given."""
