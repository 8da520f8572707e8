"""A labelled structure that the tests of formats write in their own form and read back."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

from tesseral.data.structures import structure_from_atoms

SYMBOLS = ["Si", "O"]
CELL = np.array([[5.1, 0.0, 0.0], [-1.3, 4.9, 0.0], [0.4, 0.2, 6.2]])  # Å
POSITIONS = np.array([[0.1, 0.2, 0.3], [1.5, 1.4, 2.2]])  # Å
FORCES = np.array([[0.31, -0.22, 0.13], [-0.31, 0.22, -0.13]])  # eV/Å
ENERGY = -12.345678  # eV
# Under compression in all directions, with six different components.
STRESS = -units.GPa * np.array([[1.1, 0.4, 0.6], [0.4, 2.2, 0.5], [0.6, 0.5, 3.3]])  # eV/Å³
VIRIAL = -STRESS * np.linalg.det(CELL)  # eV


def assert_read(
    atoms: Atoms, *, tolerance: float = 1e-6, stress: bool = True, periodic: bool = True
) -> None:
    """Compare with the structure above, in tesseral's units."""
    found = structure_from_atoms(atoms)
    assert found.numbers.tolist() == [14, 8]
    np.testing.assert_allclose(found.positions, POSITIONS, atol=tolerance)
    np.testing.assert_allclose(found.energy, ENERGY, atol=10 * tolerance)
    np.testing.assert_allclose(found.forces, FORCES, atol=tolerance)
    assert found.pbc.tolist() == [periodic] * 3
    if periodic:
        np.testing.assert_allclose(found.cell, CELL, atol=tolerance)
    if stress:
        np.testing.assert_allclose(found.stress, STRESS, atol=tolerance)
    else:
        assert np.isnan(found.stress).all()
