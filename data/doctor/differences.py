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
OFFSET_SHIFT = 0.3  # Å, the same for an offset, if there are too few pairs otherwise
SMALLEST_CHANGE = 1e-3  # relative, of the volume; smaller ones say nothing about an offset
LARGEST_GROUP = 300  # structures of the same atoms that are compared with each other
NEAREST = 3  # partners of a structure


class Pair(NamedTuple):
    """Two structures of the same atoms that differ by a small strain."""

    first: int
    second: int
    strain: Array  # (3, 3)
    shifts: Array  # (n, 3) Å, displacements in addition to the strain


class Differences(NamedTuple):
    """Finite differences of the energies of P pairs, and their values from the stresses, eV."""

    change: Array  # (P,) E2 - E1 + ½ Σ (F1 + F2) · Δu
    product: Array  # (P,) ½ (V1 σ1 + V2 σ2) : ε
    atoms: Array  # (P,)
    trace: Array  # (P,) tr ε, relative change of the volume


class Offset(NamedTuple):
    """Isotropic virial that all stresses have in addition to the derivative of the energies.

    That of an incomplete basis of plane waves is proportional to the number of atoms.
    """

    virial: float  # eV/atom, stress times volume
    left: float  # of the disagreement between stresses and energies, without it
    factor_left: float  # the same without a common factor instead
    pairs: int


def energy_differences(
    sample: Sample, labels: Labels, forces_factor: float = 1.0, shift: float = LARGEST_SHIFT
) -> Differences:
    """Energies of strained structures by finite differences and by stresses.

    ``E2 - E1 = ½ (V1 σ1 + V2 σ2) : ε - ½ Σ (F1 + F2) · Δu`` for a strain ε and additional
    displacements Δu, up to third order in both.

    Args:
        sample: the structures.
        labels: energies and stresses of the structures in the units in which they are compared.
        forces_factor: factor of the forces of the structures that makes them consistent with the
            labels.
        shift: largest root mean square of the displacements, Å.
    """
    found = []
    for pair in strained_pairs(sample, shift):
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
            found.append((difference, product, n, float(np.trace(pair.strain))))
    return Differences(*np.array(found, dtype=np.float64).reshape(-1, 4).T)


def stress_ratio(sample: Sample, labels: Labels, forces_factor: float = 1.0) -> tuple[float, int]:
    """Ratio of stress labels to finite differences of the energies, and the number of pairs.

    Args:
        sample: the structures.
        labels: as in `energy_differences`.
        forces_factor: the same.
    """
    found = energy_differences(sample, labels, forces_factor)
    if not len(found.change):
        return float("nan"), 0
    size = np.abs(found.change)
    # A wrong energy gives large changes, which must not dominate.
    weight = np.minimum(size, 3 * np.median(size))
    return weighted_median(found.product / found.change, weight), len(size)


def stress_offset(
    sample: Sample, labels: Labels, enough: int, forces_factor: float = 1.0
) -> Offset | None:
    """Offset of the stresses; None without enough pairs of different volumes.

    Args:
        sample: the structures.
        labels: as in `energy_differences`.
        enough: smallest number of pairs.
        forces_factor: as in `energy_differences`.
    """
    for shift in (LARGEST_SHIFT, OFFSET_SHIFT):
        found = energy_differences(sample, labels, forces_factor, shift)
        used = np.abs(found.trace) > SMALLEST_CHANGE
        if used.sum() >= enough:
            break
    else:
        return None
    change, product, atoms, trace = (values[used] for values in found)
    apart, dilation = product - change, atoms * trace
    virial = weighted_median(apart / dilation, np.abs(dilation))
    factor = weighted_median(product / change, np.abs(change))
    disagreement = max(float(np.median(np.abs(apart))), 1e-12)
    return Offset(
        virial=virial,
        left=float(np.median(np.abs(apart - virial * dilation))) / disagreement,
        factor_left=float(np.median(np.abs(product / factor - change))) / disagreement
        if factor
        else np.inf,
        pairs=len(change),
    )


def strained_pairs(sample: Sample, shift: float = LARGEST_SHIFT) -> list[Pair]:
    """Pairs of structures with similar scaled positions in slightly different cells.

    Args:
        sample: the structures.
        shift: largest root mean square displacement in addition to the strain, Å.
    """
    groups: dict[bytes, list[int]] = {}
    for index, structure in enumerate(sample.structures):
        if structure.pbc.all():
            groups.setdefault(structure.numbers.tobytes(), []).append(index)
    pairs: list[Pair] = []
    for members in groups.values():
        if len(members) > 1:
            pairs += _pairs(sample, np.array(members[:LARGEST_GROUP]), shift)
    return pairs


def _pairs(sample: Sample, members: Integers, shift: float) -> list[Pair]:
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
        near = (size < shift) & (apart > SMALLEST_STRAIN) & (apart < LARGEST_STRAIN)
        chosen = np.nonzero(near)[0]
        for b in chosen[np.argsort(apart[chosen])][:NEAREST]:
            key = (min(a, int(b)), max(a, int(b)))
            if key not in found:
                change = stretch[b] + np.eye(3)
                strain = 0.5 * np.real(logm(change @ change.T))
                found[key] = Pair(int(members[a]), int(members[b]), strain, shifts[b])
    return list(found.values())
