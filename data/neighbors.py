"""Neighbour lists, by the compiled search or by matscipy, and graphs made from them.

Valid for cells smaller than the cutoff, skewed cells, slabs, wires and molecules without a cell,
and for atoms anywhere in space. An atom's own periodic images are also its neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from matscipy.neighbours import neighbour_list
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from tesseral.data import cell_list
from tesseral.data.cells import complete_cell, has_volume
from tesseral.data.graph import AtomicGraph

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Search = Callable[..., tuple[Any, Any, Any]]  # with the arguments of `cell_list.search`

FEW = 100  # atoms of a molecule up to which all pairs take less time than a search grid
FARTHEST = 1e7  # Å; positions and cell vectors beyond it have no meaningful differences
MAX_NEIGHBORS = 20_000  # of an atom; a hundred times those of a dense crystal
MAX_BINS = 100_000  # bins of the search grid; beyond it, a molecule's box is mostly empty space


class NeighborList(NamedTuple):
    """Directed edges sorted by receiver, then by sender."""

    senders: Integers  # (E,)
    receivers: Integers  # (E,)
    shifts: Array  # (E, 3) integers


def neighbor_list(
    positions: ArrayLike,
    cell: ArrayLike,
    pbc: ArrayLike,
    cutoff: float,
    search: Search | None = None,
) -> NeighborList:
    """All pairs of atoms closer than the cutoff, across periodic boundaries.

    The vector of an edge is ``positions[receiver] - positions[sender] + shift @ cell``.

    Args:
        positions: (n, 3) Å; they may lie outside the cell.
        cell: (3, 3) Å, rows are lattice vectors; ignored in non-periodic directions.
        pbc: (3,) periodic directions.
        cutoff: cutoff (Å).
        search: used instead of ``cell_list.search``; may return tensors on a device, and senders
            that are not sorted.

    Returns:
        Senders (E,), receivers (E,) and shifts (E, 3).

    Raises:
        ValueError: positions or cell are not finite, the cutoff is not positive, the periodic
            cell vectors are linearly dependent, or an atom would have more than MAX_NEIGHBORS
            neighbours.
    """
    check_geometry(positions, cell, pbc)
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"the cutoff is {cutoff} Å; it must be positive")
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    lattice = np.asarray(cell, dtype=np.float64)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    if len(points) == 0:
        return NeighborList(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)))
    if len(points) <= FEW and not periodic.any():
        return _all_pairs(points, cutoff)
    box = complete_cell(lattice, periodic)
    inverse = np.linalg.inv(box).astype(np.float64, copy=False)
    heights = 1 / np.sqrt((inverse * inverse).sum(axis=0))  # between the faces
    if not periodic.all():  # in other directions, what the atoms take
        extents = np.ptp(points @ inverse, axis=0) * heights + 0.5 * cutoff
        heights = np.where(periodic, heights, extents)
    check_density(np.array([len(points)]), heights[None], periodic, cutoff)
    if not periodic.any() and np.prod(heights / cutoff) > MAX_BINS:
        return _distant_fragments(points, cutoff)
    if search is not None:
        return NeighborList(*search(points, box, inverse, periodic, cutoff))
    if cell_list.available():
        return NeighborList(*cell_list.search(points, box, inverse, periodic, cutoff))
    return _by_matscipy(points, box, inverse, periodic, cutoff)


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
    check_counts(numbers, positions)
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


def check_counts(numbers: ArrayLike, positions: ArrayLike) -> None:
    """Reject arrays of different numbers of atoms, which compiled code would read beyond their end.

    Raises:
        ValueError: the numbers differ.
    """
    if len(np.asarray(numbers)) != len(np.asarray(positions)):
        raise ValueError(
            f"there are {len(np.asarray(numbers))} atomic numbers and {len(np.asarray(positions))} "
            "positions; give one of each for every atom"
        )


def species_index(numbers: ArrayLike, elements: tuple[int, ...]) -> Integers:
    """Position of each atomic number in the sorted ``elements``, (n,).

    Raises:
        ValueError: an element is not among them, and the message names it; or the numbers are not
            whole numbers.
    """
    found = np.asarray(numbers)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(
            f"atomic numbers must be a list of whole numbers; found {found.dtype} {found.shape}"
        )
    values = found.astype(np.int64)
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


def check_geometry(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> None:
    """Reject positions and cells for which no neighbour list exists.

    Raises:
        ValueError: a shape or type is wrong, a number is not finite or too large, or the periodic
            cell vectors are linearly dependent.
    """
    points, lattice, periodic = np.asarray(positions), np.asarray(cell), np.asarray(pbc, dtype=bool)
    if points.size and (points.ndim != 2 or points.shape[1] != 3):
        raise ValueError(f"positions must have the shape (atoms, 3); found {points.shape}")
    if lattice.shape != (3, 3) or periodic.shape not in ((3,), ()):
        raise ValueError(
            f"the cell must have the shape (3, 3), and pbc (3,); found {lattice.shape} and "
            f"{periodic.shape}"
        )
    for name, values in (("positions", points), ("the cell", lattice)):
        if values.dtype.kind not in "iuf":
            raise ValueError(f"{name} must be real numbers; found an array of {values.dtype}")
    if points.size and not np.abs(points).max() <= FARTHEST:  # also if one is NaN
        atom = int(np.argmin((np.abs(points) <= FARTHEST).all(axis=1)))
        place = points[atom].tolist()
        kind = "too far away" if np.isfinite(points[atom]).all() else "not finite"
        raise ValueError(f"the position of atom {atom} is {place}, which is {kind}")
    if not np.abs(lattice).max() <= FARTHEST:
        kind = "too large" if np.isfinite(lattice).all() else "not finite"
        raise ValueError(f"the cell is {kind}: {lattice.tolist()} Å")
    if not has_volume(lattice, periodic if periodic.shape else np.repeat(periodic, 3)):
        raise ValueError(
            f"the atoms are periodic in a cell without volume: vectors of {lattice.tolist()} Å "
            "are zero, short or linearly dependent; give the cell, or switch pbc off in directions "
            "without one"
        )


def _all_pairs(points: Array, cutoff: float) -> NeighborList:
    """Edges of a small molecule."""
    vectors = points[:, None] - points
    near = np.einsum("ijk,ijk->ij", vectors, vectors) < cutoff**2
    np.fill_diagonal(near, False)
    receivers, senders = np.nonzero(near)
    return NeighborList(senders, receivers, np.zeros((len(senders), 3)))


def check_density(sizes: Integers, heights: Array, pbc: NDArray[np.bool_], cutoff: float) -> None:
    """Reject cells that are far too small, most likely because of their unit.

    Args:
        sizes: (G,) numbers of atoms.
        heights: (G, 3) Å, between the faces of cells, or what the atoms take.
        pbc: (3,) periodic directions.
        cutoff: cutoff (Å).

    Raises:
        ValueError: an atom would have more than MAX_NEIGHBORS neighbours.
    """
    with np.errstate(divide="ignore"):
        reach = 2 * cutoff / heights
    neighbors = sizes * np.prod(np.where(pbc, reach, np.minimum(reach, 1.0)), axis=1)
    if (neighbors > MAX_NEIGHBORS).any():
        worst = int(neighbors.argmax())
        between = ", ".join(f"{height:.3g}" for height in heights[worst])
        raise ValueError(
            f"{sizes[worst]} atoms in a cell with {between} Å between its faces would have some "
            f"{neighbors[worst]:.0f} neighbours each; check the cell and its unit"
        )


def _distant_fragments(points: Array, cutoff: float) -> NeighborList:
    """Edges of a molecule whose box is mostly empty space."""
    pairs = cKDTree(points).query_pairs(cutoff, output_type="ndarray").astype(np.int64)
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    return _in_order(j, i, np.zeros((len(i), 3)), len(points))


def _by_matscipy(
    points: Array, box: Array, inverse: Array, pbc: NDArray[np.bool_], cutoff: float
) -> NeighborList:
    """Edges without the compiled search."""
    # Lattice translations move the atoms into the cell; in other directions the box is fitted.
    fractions = points @ inverse
    wraps = np.where(pbc, np.floor(fractions), 0.0)
    inside = fractions - wraps
    low = np.where(pbc, 0.0, inside.min(axis=0))
    extent = np.where(pbc, 1.0, inside.max(axis=0) - low + 0.5 * cutoff)
    box = box * extent[:, None]
    with warnings.catch_warnings():
        # For a long wire or slab matscipy warns only that the search takes longer.
        warnings.filterwarnings("ignore", "Ratio of simulation cell size", RuntimeWarning)
        try:
            i, j, shift = neighbour_list(
                "ijS",
                cutoff=float(cutoff),
                positions=(inside - low) / extent @ box,
                cell=box,
                pbc=pbc,
            )
        except RuntimeError as error:  # there is no memory for the grid of a huge cell
            raise ValueError(
                f"there is no neighbour list for a cell of {box.tolist()} Å ({error}); check the "
                "cell and its unit"
            ) from error
    senders, receivers = j.astype(np.int64), i.astype(np.int64)
    shifts = wraps[senders] - wraps[receivers] - shift
    return _in_order(senders, receivers, shifts, len(points))


def _in_order(senders: Integers, receivers: Integers, shifts: Array, atoms: int) -> NeighborList:
    """Edges sorted by receiver, then by sender."""
    order = np.argsort(receivers * atoms + senders, kind="stable")
    return NeighborList(senders[order], receivers[order], shifts[order])
