"""Neighbour lists by matscipy, and graphs made from them.

Valid for cells smaller than the cutoff, skewed cells, slabs, wires and molecules without a cell,
and for atoms anywhere in space. An atom's own periodic images are also its neighbours.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from matscipy.neighbours import neighbour_list
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from tesseral.data.cells import complete_cell, has_volume
from tesseral.data.graph import AtomicGraph

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

FEW = 100  # atoms of a molecule up to which all pairs take less time than a search grid
MAX_BINS = 100_000  # bins of the search grid; beyond it, a molecule's box is mostly empty space


class NeighborList(NamedTuple):
    """Directed edges sorted by receiver, then by sender."""

    senders: Integers  # (E,)
    receivers: Integers  # (E,)
    shifts: Array  # (E, 3) integers


def neighbor_list(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float
) -> NeighborList:
    """All pairs of atoms closer than the cutoff, across periodic boundaries.

    The vector of an edge is ``positions[receiver] - positions[sender] + shift @ cell``.

    Args:
        positions: (n, 3) Å; they may lie outside the cell.
        cell: (3, 3) Å, rows are lattice vectors; ignored in non-periodic directions.
        pbc: (3,) periodic directions.
        cutoff: cutoff (Å).

    Returns:
        Senders (E,), receivers (E,) and shifts (E, 3).

    Raises:
        ValueError: positions or cell are not finite, the cutoff is not positive, or the periodic
            cell vectors are linearly dependent.
    """
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    lattice = np.asarray(cell, dtype=np.float64).reshape(3, 3)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    _check(points, lattice, periodic, cutoff)
    if len(points) == 0:
        return NeighborList(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)))
    if len(points) <= FEW and not periodic.any():
        return _all_pairs(points, cutoff)
    box = complete_cell(lattice, periodic)
    fractions = np.linalg.solve(box.T, points.T).T
    # Lattice translations move the atoms into the cell; in other directions the box is fitted.
    wraps = np.where(periodic, np.floor(fractions), 0.0)
    inside = fractions - wraps
    low = np.where(periodic, 0.0, inside.min(axis=0))
    extent = np.where(periodic, 1.0, inside.max(axis=0) - low + 0.5 * cutoff)
    box = box * extent[:, None]
    inside = (inside - low) / extent
    receivers, senders, shifts = _search(inside @ box, box, periodic, cutoff)
    shifts = shifts + wraps[senders] - wraps[receivers]
    order = np.argsort(receivers * len(points) + senders, kind="stable")
    return NeighborList(senders[order], receivers[order], shifts[order])


def atomic_graph(
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike,
    pbc: ArrayLike,
    elements: tuple[int, ...],
    cutoff: float,
) -> AtomicGraph:
    """Graph of one structure.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å.
        cell: (3, 3) Å; rows of non-periodic directions are kept but give no edges.
        pbc: (3,) periodic directions.
        elements: sorted atomic numbers that the model supports.
        cutoff: cutoff (Å).

    Raises:
        ValueError: an element is not among ``elements``; see also `neighbor_list`.
    """
    edges = neighbor_list(positions, cell, pbc, cutoff)
    # A copy of the positions: the graph must not change when the caller moves its atoms.
    points = torch.tensor(np.asarray(positions, dtype=np.float64).reshape(-1, 3))
    return AtomicGraph(
        positions=points,
        species=torch.from_numpy(species_index(numbers, elements)),
        structure=torch.zeros(len(points), dtype=torch.int64),
        cell=torch.tensor(np.asarray(cell, dtype=np.float64).reshape(1, 3, 3)),
        senders=torch.from_numpy(edges.senders),
        receivers=torch.from_numpy(edges.receivers),
        shifts=torch.from_numpy(edges.shifts),
    )


def species_index(numbers: ArrayLike, elements: tuple[int, ...]) -> Integers:
    """Position of each atomic number in the sorted ``elements``, (n,).

    Raises:
        ValueError: an element is not among them; the message names it.
    """
    values = np.asarray(numbers, dtype=np.int64)
    known = np.asarray(elements, dtype=np.int64)
    index = np.minimum(np.searchsorted(known, values), len(known) - 1)
    strange = np.unique(values[known[index] != values])
    if len(strange):
        raise ValueError(
            f"element {names(strange)} is not one of those the model supports: {names(elements)}"
        )
    return index.astype(np.int64)


def names(numbers: ArrayLike) -> str:
    """Chemical symbols of atomic numbers, for messages."""
    from ase.data import chemical_symbols

    values = [int(number) for number in np.atleast_1d(np.asarray(numbers))]
    return ", ".join(chemical_symbols[z] if 0 < z < 119 else f"number {z}" for z in values)


def _check(points: Array, cell: Array, pbc: NDArray[np.bool_], cutoff: float) -> None:
    """Reject input for which no neighbour list exists."""
    if not np.isfinite(points).all():
        atom = int(np.nonzero(~np.isfinite(points).all(axis=1))[0][0])
        raise ValueError(f"the position of atom {atom} is {points[atom]}; positions must be finite")
    if not np.isfinite(cell).all():
        raise ValueError(f"the cell must be made of finite numbers; found {cell.tolist()}")
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"the cutoff is {cutoff} Å; it must be positive")
    if not has_volume(cell, pbc):
        raise ValueError(
            f"the periodic cell vectors {cell[pbc].tolist()} are zero or linearly dependent; "
            "give the cell, or switch pbc off in directions without one"
        )


def _all_pairs(points: Array, cutoff: float) -> NeighborList:
    """Edges of a small molecule."""
    vectors = points[:, None] - points
    near = np.einsum("ijk,ijk->ij", vectors, vectors) < cutoff**2
    np.fill_diagonal(near, False)
    receivers, senders = np.nonzero(near)
    return NeighborList(senders, receivers, np.zeros((len(senders), 3)))


def _search(
    points: Array, box: Array, pbc: NDArray[np.bool_], cutoff: float
) -> tuple[Integers, Integers, Array]:
    """Pairs (i, j, S) with ``|r_i - r_j + S @ box| < cutoff`` of atoms inside the box."""
    heights = abs(np.linalg.det(box)) / np.linalg.norm(
        np.cross(np.roll(box, -1, axis=0), np.roll(box, -2, axis=0)), axis=1
    )
    if not pbc.any() and np.prod(heights / cutoff) > MAX_BINS:
        pairs = cKDTree(points).query_pairs(cutoff, output_type="ndarray").astype(np.int64)
        i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
        return i, j, np.zeros((len(i), 3))
    with warnings.catch_warnings():
        # For a long wire or slab matscipy warns only that the search takes longer.
        warnings.filterwarnings("ignore", "Ratio of simulation cell size", RuntimeWarning)
        i, j, shift = neighbour_list(
            "ijS", cutoff=float(cutoff), positions=points, cell=box, pbc=pbc
        )
    return i.astype(np.int64), j.astype(np.int64), -shift.astype(np.float64)
