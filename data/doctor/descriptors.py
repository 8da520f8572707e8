"""Invariants of atomic environments with their derivatives, for a linear model of the labels.

The invariants are radial sums ``A_n = Σ_j R_n(r_ij)`` over each element's neighbours, and scalar
products of radial sums of scalars, unit vectors ``u`` and traceless ``u ⊗ u`` (two- and three-body
terms of the atomic cluster expansion, Drautz, Phys. Rev. B 99, 014104, in Cartesian form). The
forces and stress of a potential that is linear in the invariants are linear too, so that one
least-squares fit uses all labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy import sparse

from tesseral.data.neighbors import neighbor_list
from tesseral.data.structures import Structure

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

CUTOFF = 5.0  # Å
RADIAL = 8  # radial functions of the sums
PRODUCT_RADIAL = (4, 3, 2)
ATOMS_OF_FORCES = 24  # maximum number of atoms of a structure whose forces are used
DIRECTED = 0.02  # sum of vectors of an environment with a direction, a displacement of 0.02 Å
PARTS = ("vector", "radial", "slope")


class Rows(NamedTuple):
    """Rows of one structure in the linear model with F columns; the first are numbers of atoms."""

    energy: Array  # (F,) per atom
    forces: NDArray[np.float32]  # (3 a, F) of the atoms of ``force_atoms``
    stress: Array  # (9, F) per Å³; NaN without a volume


class _Neighbors(NamedTuple):
    """Edges of one structure with their radial functions."""

    center: Integers  # (E,)
    other: Integers  # (E,)
    vector: Array  # (E, 3) from the centre to the other atom
    radial: Array  # (E, C, R) in the channel of the neighbour's element
    slope: Array  # (E, C, R)


def describe(structure: Structure, elements: tuple[int, ...]) -> Rows:
    """Rows of a structure in the linear model.

    If there are more than three elements, they share their columns, with distances scaled by the
    square root of the sum of the covalent radii.

    Args:
        structure: any structure.
        elements: sorted atomic numbers of the whole dataset.
    """
    near = _neighbors(structure, elements)
    n = len(structure.numbers)
    kinds = _kinds(structure, elements)
    channels = near.radial.shape[1]
    sums, moments = _moments(near, n)
    values, slopes = _invariants(sums, moments), _slopes(near, moments)
    width = values.shape[1]
    energy = np.zeros((channels, width))
    np.add.at(energy, kinds, values)
    atoms = force_atoms(n)
    forces = np.zeros((3 * len(atoms), channels, width), dtype=np.float32)
    stress = np.zeros((9, channels, width))
    for kind in range(channels):
        of_kind = kinds[near.center] == kind
        part = slopes[of_kind].reshape(int(of_kind.sum()), 3 * width)
        # Moving the other atom changes the centre's energy by +slope, moving the centre by -slope.
        to_atoms = _incidence(near.center[of_kind], n) - _incidence(near.other[of_kind], n)
        gathered = (to_atoms[atoms] @ part).reshape(len(atoms), width, 3)
        forces[:, kind] = gathered.transpose(0, 2, 1).reshape(-1, width)
        virial = near.vector[of_kind].T @ part
        stress[:, kind] = virial.reshape(3, width, 3).transpose(0, 2, 1).reshape(9, width)
    volume = abs(np.linalg.det(structure.cell)) if structure.pbc.all() else np.nan
    counts = np.array([(structure.numbers == z).sum() for z in elements], dtype=np.float64)
    none = np.zeros((1, len(elements)))
    return Rows(
        energy=np.concatenate([counts, energy.ravel()]) / n,
        forces=np.concatenate(
            [np.repeat(none, len(forces), 0), forces.reshape(len(forces), -1)], axis=1
        ).astype(np.float32),
        stress=np.concatenate([np.repeat(none, 9, 0), stress.reshape(9, -1)], axis=1) / volume,
    )


def force_atoms(n: int) -> Integers:
    """Fixed selection from n atoms whose forces are sufficient for the fit."""
    if n <= ATOMS_OF_FORCES:
        return np.arange(n)
    return np.sort(np.random.default_rng(n).choice(n, ATOMS_OF_FORCES, replace=False))


def environments(structure: Structure, elements: tuple[int, ...]) -> Array:
    """Invariants of each atom without derivatives, (n, F), elements in separate columns."""
    near = _neighbors(structure, elements)
    kinds = _kinds(structure, elements)
    values = _invariants(*_moments(near, len(structure.numbers)))
    separate = np.zeros((len(values), near.radial.shape[1], values.shape[1]))
    separate[np.arange(len(values)), kinds] = values
    return separate.reshape(len(values), -1)


def has_zero_forces(structure: Structure) -> bool:
    """Return whether all forces are exactly zero although the environments have a direction.

    By symmetry a force vanishes only if all radial sums of the unit vectors to the neighbours do.
    """
    if len(structure.numbers) < 2 or np.any(structure.forces != 0):  # also NaN
        return False
    near = _neighbors(structure, tuple(np.unique(structure.numbers).tolist()))
    unit = near.vector / np.linalg.norm(near.vector, axis=1, keepdims=True)
    each = near.radial.reshape(len(unit), -1)[:, :, None] * unit[:, None, :]
    sums = _incidence(near.center, len(structure.numbers)) @ each.reshape(len(unit), -1)
    return bool(np.abs(sums).max(initial=0.0) > DIRECTED)


def _pooled(elements: tuple[int, ...]) -> bool:
    return len(elements) > len(PRODUCT_RADIAL)


def _kinds(structure: Structure, elements: tuple[int, ...]) -> Integers:
    """Channel of each atom."""
    if _pooled(elements):
        return np.zeros(len(structure.numbers), dtype=np.int64)
    return np.searchsorted(np.array(elements), structure.numbers)


def _neighbors(structure: Structure, elements: tuple[int, ...]) -> _Neighbors:
    """Edges within the cutoff, with radial functions of distances."""
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, CUTOFF)
    center, other = edges.receivers, edges.senders
    # The vector of an edge points to its receiver, which is the centre here.
    vector = (
        structure.positions[other] - structure.positions[center] - edges.shifts @ structure.cell
    )
    length = np.linalg.norm(vector, axis=1)
    stretch = np.ones_like(length)
    if _pooled(elements):
        radii = covalent_radii[structure.numbers]
        largest = 2 * covalent_radii[list(elements)].max()
        stretch = np.sqrt(largest / (radii[center] + radii[other]))
    near = (length * stretch < CUTOFF) & (length > 0.01)
    center, other, vector = center[near], other[near], vector[near]
    length, stretch = length[near], stretch[near]
    values, slopes = _radial(length * stretch)
    kinds = _kinds(structure, elements)
    channels = 1 if _pooled(elements) else len(elements)
    radial = np.zeros((len(length), channels, RADIAL))
    slope = np.zeros_like(radial)
    edge = np.arange(len(length))
    radial[edge, kinds[other]] = values
    slope[edge, kinds[other]] = slopes * stretch[:, None]
    return _Neighbors(center, other, vector, radial, slope)


def _radial(r: Array) -> tuple[Array, Array]:
    """Spherical Bessel functions that end smoothly at the cutoff, (E, RADIAL), and their slopes."""
    x = r / CUTOFF
    k = np.arange(1, RADIAL + 1) * np.pi / CUTOFF
    end, end_slope = (1 - x**2) ** 2, -4 * x * (1 - x**2) / CUTOFF
    wave = np.sin(r[:, None] * k) / r[:, None]
    wave_slope = (k * np.cos(r[:, None] * k) - wave) / r[:, None]
    return wave * end[:, None], wave_slope * end[:, None] + wave * end_slope[:, None]


def _moments(near: _Neighbors, n: int) -> tuple[Array, list[Array]]:
    """Radial sums of each atom, (n, C R), and its moments of each rank, (n, channels, m)."""
    edges = len(near.center)
    gather = _incidence(near.center, n)
    radial = _product_radial(near.radial)
    moments = []
    for tensor, _ in _tensors(near.vector):
        each = radial[:, :, None] * tensor[:, None, :]
        moments.append(
            (gather @ each.reshape(edges, radial.shape[1] * tensor.shape[1])).reshape(
                n, radial.shape[1], tensor.shape[1]
            )
        )
    return gather @ near.radial.reshape(edges, near.radial.shape[1] * RADIAL), moments


def _invariants(sums: Array, moments: list[Array]) -> Array:
    """Sums and products of each atom, (n, W)."""
    first, second = np.triu_indices(moments[0].shape[1])
    products = [np.einsum("ncm,ndm->ncd", part, part)[:, first, second] for part in moments]
    return np.concatenate([sums, *products], axis=1)


def _slopes(near: _Neighbors, moments: list[Array]) -> Array:
    """Derivatives of the centre's invariants with respect to the edge's other atom, (E, W, 3).

    In float32, since nearly all the time is spent here.
    """
    edges = len(near.center)
    near = near._replace(**{k: getattr(near, k).astype(np.float32) for k in PARTS})
    moments = [part.astype(np.float32) for part in moments]
    unit = near.vector / np.linalg.norm(near.vector, axis=1, keepdims=True)
    radial, slope = _product_radial(near.radial), _product_radial(near.slope)
    width = radial.shape[1]
    first, second = np.triu_indices(width)
    slopes = [
        near.slope.reshape(edges, near.radial.shape[1] * RADIAL)[:, :, None] * unit[:, None, :]
    ]
    for part, (tensor, tensor_slope) in zip(moments, _tensors(near.vector), strict=True):
        change = radial[:, :, None, None] * tensor_slope[:, None] + (
            slope[:, :, None, None] * tensor[:, None, :, None] * unit[:, None, None, :]
        )
        flat = change.transpose(0, 2, 1, 3).reshape(edges, tensor.shape[1], 3 * width)
        products = np.matmul(part[near.center], flat).reshape(edges, width, width, 3)
        slopes.append(products[:, first, second] + products[:, second, first])
    return np.concatenate(slopes, axis=1)


def _product_radial(radial: Array) -> Array:
    """Radial functions used in products, (E, channels · few)."""
    edges, channels, _ = radial.shape
    few = PRODUCT_RADIAL[channels - 1]
    return radial[:, :, :few].reshape(edges, channels * few)


def _tensors(vector: Array) -> list[tuple[Array, Array]]:
    """Scalar, vector and traceless tensor of each edge, (E, m), with slopes (E, m, 3)."""
    edges = len(vector)
    length = np.linalg.norm(vector, axis=1)
    unit = vector / length[:, None]
    outer = unit[:, :, None] * unit[:, None, :]
    identity = np.eye(3, dtype=vector.dtype)
    across = (identity - outer) / length[:, None, None]
    turned = across[:, :, None, :] * unit[:, None, :, None]
    second = turned + turned.transpose(0, 2, 1, 3)
    return [
        (np.ones((edges, 1), vector.dtype), np.zeros((edges, 1, 3), vector.dtype)),
        (unit, across),
        ((outer - identity / 3).reshape(edges, 9), second.reshape(edges, 9, 3)),
    ]


def _incidence(atoms: Integers, n: int) -> sparse.csr_matrix:
    """Matrix (n, E) that sums over the edges of each atom."""
    edges = len(atoms)
    return sparse.csr_matrix(
        (np.ones(edges, dtype=np.float32), (atoms, np.arange(edges))), shape=(n, edges)
    )
