"""Stress from finite differences between structures that differ by a small strain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import logm

from tesseral.data.doctor.ridge import Labels, weighted_median
from tesseral.data.doctor.sample import Array, Integers, Sample

LARGEST_STRAIN = 0.05
SMALLEST_STRAIN = 1e-4
LARGEST_SHIFT = 0.05  # Å, RMS displacement in addition to the strain
LARGEST_GROUP = 300  # structures of the same atoms that are compared with each other
NEAREST = 3  # partners of a structure


class Pair(NamedTuple):
    """Two structures of the same atoms that differ by a small strain."""

    first: int
    second: int
    strain: Array  # (3, 3)
    shifts: Array  # (n, 3) Å, displacements in addition to the strain


def stress_ratio(sample: Sample, labels: Labels, forces_factor: float = 1.0) -> tuple[float, int]:
    """Ratio of stress labels to finite differences of the energies, and the number of pairs.

    ``E2 - E1 = ½ (V1 σ1 + V2 σ2) : ε - ½ Σ (F1 + F2) · Δu`` for a strain ε and additional
    displacements Δu, up to third order in both.

    Args:
        sample: the structures.
        labels: energies and stresses of the structures in the units in which they are compared.
        forces_factor: factor of the forces of the structures that makes them consistent with the
            labels.
    """
    differences, products = [], []
    for pair in strained_pairs(sample):
        a, b = pair.first, pair.second
        n = sample.n_atoms[a]
        forces = sample.structures[a].forces + sample.structures[b].forces
        work = (
            0.0
            if np.isnan(forces).any()
            else 0.5 * forces_factor * float(np.sum(forces * pair.shifts))
        )
        virial = n * (sample.volumes[a] * labels.stress[a] + sample.volumes[b] * labels.stress[b])
        product = 0.5 * float(virial @ pair.strain.ravel())
        difference = float(n * (labels.energy[b] - labels.energy[a])) + work
        if np.isfinite(product) and np.isfinite(difference) and difference != 0:
            products.append(product)
            differences.append(difference)
    if not products:
        return float("nan"), 0
    change = np.array(differences)
    size = np.abs(change)
    # A wrong energy gives large changes, which must not dominate.
    weight = np.minimum(size, 3 * np.median(size))
    return weighted_median(np.array(products) / change, weight), len(products)


def strained_pairs(sample: Sample) -> list[Pair]:
    """Pairs of structures with the same scaled positions in slightly different cells."""
    groups: dict[bytes, list[int]] = {}
    for index, structure in enumerate(sample.structures):
        if structure.pbc.all():
            groups.setdefault(structure.numbers.tobytes(), []).append(index)
    pairs: list[Pair] = []
    for members in groups.values():
        if len(members) > 1:
            pairs += _pairs(sample, np.array(members[:LARGEST_GROUP]))
    return pairs


def _pairs(sample: Sample, members: Integers) -> list[Pair]:
    """Pairs of each member of a group with its nearest partners."""
    cells = np.stack([sample.structures[i].cell for i in members])
    scaled = np.stack(
        [
            np.linalg.solve(sample.structures[i].cell.T, sample.structures[i].positions.T).T
            for i in members
        ]
    )
    found = {}
    for a in range(len(members)):
        moved = scaled - scaled[a]
        moved -= np.round(moved)
        moved -= moved.mean(axis=1, keepdims=True)
        shifts = moved @ cells[a]
        size = np.sqrt(np.mean(np.sum(shifts**2, axis=2), axis=1))
        stretch = np.linalg.solve(cells[a][None], cells) - np.eye(3)
        apart = np.linalg.norm(stretch, axis=(1, 2))
        near = (size < LARGEST_SHIFT) & (apart > SMALLEST_STRAIN) & (apart < LARGEST_STRAIN)
        chosen = np.nonzero(near)[0]
        for b in chosen[np.argsort(apart[chosen])][:NEAREST]:
            key = (min(a, int(b)), max(a, int(b)))
            if key not in found:
                change = stretch[b] + np.eye(3)
                strain = 0.5 * np.real(logm(change @ change.T))
                found[key] = Pair(int(members[a]), int(members[b]), strain, shifts[b])
    return list(found.values())
