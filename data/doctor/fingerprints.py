"""Fingerprints of structures, to find equal or nearly equal structures.

A fingerprint is the composition with means and standard deviations of the invariants of all atoms
(`descriptors`). It does not change with rotation, reflection, translation, the order of atoms or
the choice of the periodic cell, including supercells. Distances between fingerprints are given in
Å: the RMS random displacement of the atoms that changes a fingerprint by the same amount, found by
trial displacements.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tesseral.data.doctor.descriptors import environments
from tesseral.data.doctor.sample import Array, Integers
from tesseral.data.structures import Structure

SAME = 1e-3  # Å; more than the rounding of text files
NEAR = 0.02  # Å; a few femtoseconds of a trajectory
TRIAL = 0.01  # Å, trial displacement that calibrates distances
TRIALS = 12
DIRECTIONS = 12  # directions in which neighbours are searched
COMPOSITION = 1e3  # weight of the composition: different compositions are never near


class Fingerprints(NamedTuple):
    """Fingerprints of S structures, in Å."""

    values: Array  # (S, D)
    projected: Array  # (S, d), distances never larger than those of ``values``


def make_fingerprints(structures: list[Structure], elements: tuple[int, ...]) -> Fingerprints:
    """Fingerprints of structures that will be compared with each other.

    Args:
        structures: structures of one dataset or several.
        elements: sorted atomic numbers of all structures.
    """
    raw = np.stack([_raw(structure, elements) for structure in structures])
    width = raw.std(axis=0)
    # Columns that hardly vary keep their scale and are not amplified.
    width = np.maximum(width, 0.05 * max(float(width.max()), 1e-12))
    per_angstrom = _calibrate(structures, elements, raw, width)
    values = raw / (width * per_angstrom)
    values[:, : len(elements)] = COMPOSITION * raw[:, : len(elements)]
    rng = np.random.default_rng(0)
    directions, _ = np.linalg.qr(rng.normal(size=(values.shape[1], DIRECTIONS)))
    return Fingerprints(values, values @ directions)


def pairs_within(prints: Fingerprints, distance: float) -> tuple[Integers, Array]:
    """Pairs of structures closer than a distance in Å: (P, 2) indices and (P,) distances.

    For structures with very many such partners, only some pairs are returned.
    """
    tree = cKDTree(prints.projected)
    k = min(PARTNERS + 1, len(prints.projected))
    apart, near = tree.query(prints.projected, k=k, distance_upper_bound=distance)
    first = np.repeat(np.arange(len(near)), k)
    second, close = near.reshape(-1), np.isfinite(apart.reshape(-1))
    chosen = close & (second < len(near))
    pairs = np.stack([first[chosen], second[chosen]], axis=1)
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    return _confirmed(prints.values, pairs, distance)


PARTNERS = 16


def _confirmed(values: Array, pairs: Integers, distance: float) -> tuple[Integers, Array]:
    """Keep the pairs that are close in all directions."""
    apart = np.linalg.norm(values[pairs[:, 0]] - values[pairs[:, 1]], axis=1)
    return pairs[apart < distance], apart[apart < distance]


def nearest_within(
    prints: Fingerprints, some: NDArray[np.bool_], distance: float
) -> tuple[Integers, Integers, Array]:
    """Partners of the structures of one part in the other part, closer than a distance in Å.

    Args:
        prints: fingerprints of both parts.
        some: (S,) true for the structures of the first part.
        distance: maximum distance (Å).

    Returns:
        Indices of the structures, indices of their partners, and distances.
    """
    asked, others = np.nonzero(some)[0], np.nonzero(~some)[0]
    tree = cKDTree(prints.projected[others])
    k = min(PARTNERS, len(others))
    apart, near = tree.query(prints.projected[asked], k=k, distance_upper_bound=distance)
    apart, near = apart.reshape(len(asked), k), near.reshape(len(asked), k)
    full = np.full(apart.shape, np.inf)
    row, column = np.nonzero(np.isfinite(apart))
    partner = others[near[row, column]]
    full[row, column] = np.linalg.norm(prints.values[asked[row]] - prints.values[partner], axis=1)
    best = full.argmin(axis=1)
    least = full[np.arange(len(asked)), best]
    hit = least < distance
    return asked[hit], others[near[hit, best[hit]]], least[hit]


def _raw(structure: Structure, elements: tuple[int, ...]) -> Array:
    """Composition, then means and standard deviations of invariants over the atoms."""
    values = environments(structure, elements)
    n = len(values)
    shares = np.array([(structure.numbers == z).sum() for z in elements]) / n
    return np.concatenate([shares, values.mean(axis=0), values.std(axis=0)])


def _calibrate(
    structures: list[Structure], elements: tuple[int, ...], raw: Array, width: Array
) -> float:
    """Median change of a fingerprint per Å of random displacement."""
    rng = np.random.default_rng(0)
    several = [i for i, structure in enumerate(structures) if len(structure.numbers) > 1]
    moved = []
    for index in rng.permutation(several)[:TRIALS]:
        structure = structures[index]
        step = rng.normal(size=structure.positions.shape) * TRIAL / np.sqrt(3)
        other = _raw(structure._replace(positions=structure.positions + step), elements)
        moved.append(np.linalg.norm((other - raw[index]) / width) / TRIAL)
    return float(np.median(moved)) if moved else 1.0
