"""Crystals that have lost their periodic directions, so that atoms at faces lack neighbours."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

from tesseral.data.cells import has_volume
from tesseral.data.doctor.findings import Finding, count, make_finding
from tesseral.data.doctor.sample import Sample
from tesseral.data.neighbors import neighbor_list
from tesseral.data.structures import Structure

CONTACT = (0.75, 1.3)  # of the sum of the covalent radii: a bond across a face of the cell
FILLED = 4.0  # largest volume of the cell over that of spheres with the covalent radii of its atoms
LEAST = 4  # atoms


def check_boundaries(sample: Sample) -> list[Finding]:
    """Find dense matter without periodic directions in a cell that it fills."""
    lost = np.array([is_cut_out(structure) for structure in sample.structures])
    if not lost.any():
        return []
    return [
        make_finding(
            "warning",
            "periodic directions",
            sample.rows[lost],
            f"{count(int(lost.sum()))} in a cell filled like a crystal, but without periodic "
            "directions",
            "their outer atoms have lost their neighbours: if the calculations were periodic, set "
            'pbc="T T T" in the files and import again',
        )
    ]


def is_cut_out(structure: Structure) -> bool:
    """Whether a structure without periodic directions has a cell that it fills without overlaps.

    With periodic directions its atoms must have bonds across all three pairs of faces, and none
    must be too short. A molecule or a cluster in a box has vacuum there.
    """
    n = len(structure.numbers)
    if structure.pbc.any() or n < LEAST or not has_volume(structure.cell):
        return False
    radii = covalent_radii[structure.numbers]
    spheres = 4 / 3 * np.pi * float((radii**3).sum())
    if abs(float(np.linalg.det(structure.cell))) > FILLED * spheres:
        return False
    reach = CONTACT[1] * 2 * float(radii.max())
    near = neighbor_list(structure.positions, structure.cell, (True, True, True), reach)
    across = near.shifts.any(axis=1)
    points = structure.positions
    vectors = points[near.receivers] - points[near.senders] + near.shifts @ structure.cell
    ratio = np.linalg.norm(vectors, axis=1) / (radii[near.senders] + radii[near.receivers])
    if not across.any() or ratio[across].min() < CONTACT[0]:
        return False
    bonds = across & (ratio < CONTACT[1])
    return bool((near.shifts[bonds] != 0).any(axis=0).all())
