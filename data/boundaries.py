"""Crystals that have lost their periodic directions, so that atoms at faces lack neighbours."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from tesseral.data.cells import has_volume
from tesseral.data.neighbors import neighbor_list

CONTACT = (0.75, 1.3)  # of the sum of the covalent radii: a bond across a face of the cell
FILLED = 4.0  # largest volume of the cell over that of spheres with the covalent radii of its atoms
LEAST = 4  # atoms


def is_cut_out(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    pbc: NDArray[np.bool_],
) -> bool:
    """Whether a structure without periodic directions has a cell that it fills without overlaps.

    With periodic directions its atoms must have bonds across all three pairs of faces, and none
    must be too short. A molecule or a cluster in a box has vacuum there.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors.
        pbc: (3,) periodic directions.
    """
    if np.any(pbc) or len(numbers) < LEAST or not has_volume(cell):
        return False
    radii = covalent_radii[numbers]
    spheres = 4 / 3 * np.pi * float((radii**3).sum())
    if abs(float(np.linalg.det(cell))) > FILLED * spheres:
        return False
    reach = CONTACT[1] * 2 * float(radii.max())
    near = neighbor_list(positions, cell, (True, True, True), reach)
    across = near.shifts.any(axis=1)
    vectors = positions[near.receivers] - positions[near.senders] + near.shifts @ cell
    ratio = np.linalg.norm(vectors, axis=1) / (radii[near.senders] + radii[near.receivers])
    if not across.any() or ratio[across].min() < CONTACT[0]:
        return False
    bonds = across & (ratio < CONTACT[1])
    return bool((near.shifts[bonds] != 0).any(axis=0).all())
