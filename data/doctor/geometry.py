"""Checks of the geometry: distances, unit of length, neighbours within the cutoff."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii

from tesseral.data.doctor.findings import Finding, count, make_finding
from tesseral.data.doctor.sample import Array, Sample
from tesseral.data.neighbors import neighbor_list
from tesseral.data.units import BOHR_IN_A

OVERLAP = 0.3  # of the sum of the covalent radii: overlapping atoms
SHORT = 0.55  # shorter than in compressed and hot materials
COMMON = (0.65, 1.6)  # median nearest distances of nearly all materials


class Distances(NamedTuple):
    """Distances in each structure, and over all atoms."""

    closest: Array  # (S,) smallest distance / sum of covalent radii; inf without neighbours
    lonely: Array  # (S,) number of atoms without a neighbour
    typical: float  # median over all atoms of nearest distance / sum of covalent radii
    neighbors: float  # mean number of neighbours


def measure_distances(sample: Sample, cutoff: float) -> Distances:
    """Measure the distances between neighbours.

    Args:
        sample: the structures.
        cutoff: cutoff (Å).
    """
    closest, lonely, nearest, edges = [], [], [], 0
    for structure in sample.structures:
        near = neighbor_list(structure.positions, structure.cell, structure.pbc, cutoff)
        points = structure.positions
        vectors = points[near.receivers] - points[near.senders] + near.shifts @ structure.cell
        radii = covalent_radii[structure.numbers]
        ratio = np.linalg.norm(vectors, axis=1) / (radii[near.senders] + radii[near.receivers])
        each = np.full(len(points), np.inf)
        np.minimum.at(each, near.receivers, ratio)
        closest.append(each.min())
        lonely.append(np.isinf(each).sum())
        nearest.append(each[np.isfinite(each)])
        edges += len(near.senders)
    known = np.concatenate(nearest)
    return Distances(
        closest=np.array(closest),
        lonely=np.array(lonely),
        typical=float(np.median(known)) if len(known) else float("nan"),
        neighbors=edges / int(sample.n_atoms.sum()),
    )


def check_geometry(sample: Sample, distances: Distances, cutoff: float) -> list[Finding]:
    """Find atoms that are too close, too far apart, or given in another unit of length."""
    findings = _unit(distances)
    overlap = distances.closest < OVERLAP
    short = (distances.closest < SHORT) & ~overlap
    if overlap.any():
        findings.append(
            make_finding(
                "error",
                "distances",
                sample.rows[overlap],
                f"overlapping atoms in {count(int(overlap.sum()))}: "
                f"{distances.closest.min():.2f} of the sum of their covalent radii",
                "check for duplicate atoms and for a wrong cell",
            )
        )
    if short.any():
        findings.append(
            make_finding(
                "note",
                "distances",
                sample.rows[short],
                f"very short distances in {count(int(short.sum()))}: from "
                f"{distances.closest[short].min():.2f} of the sum of the covalent radii",
                "useful for the short-range repulsion if intended; otherwise check them",
            )
        )
    lonely = (distances.lonely > 0) & ~sample.alone
    if lonely.any():
        findings.append(
            make_finding(
                "warning",
                "cutoff",
                sample.rows[lonely],
                f"{count(int(distances.lonely[lonely].sum()), 'atom')} of "
                f"{count(int(lonely.sum()))} without a neighbour within {cutoff:g} Å",
                "the potential cannot give them a force; take a larger cutoff, or take evaporated "
                "atoms out",
            )
        )
    return findings


def _unit(distances: Distances) -> list[Finding]:
    """Find nearest distances that no material has."""
    low, high = COMMON
    if np.isnan(distances.typical) or low < distances.typical < high:
        return []
    long = distances.typical >= high
    factor = BOHR_IN_A if long else 1 / BOHR_IN_A
    return [
        make_finding(
            "warning",
            "length unit",
            [],
            f"the nearest neighbours are at {distances.typical:.2f} times the sum of the covalent "
            f"radii; times {factor:.3f} (Å and Bohr) it is {factor * distances.typical:.2f}",
            "positions and cell must be in Å; about 1 is usual, a noble gas has 1.8",
        )
    ]
