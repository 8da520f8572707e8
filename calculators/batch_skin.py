"""Neighbour lists of many systems at once, each with a skin, for a batch that changes."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tesseral.calculators.skin import SkinNeighbors
from tesseral.data.neighbors import NeighborList

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

APART = 100.0  # Å per atom; keeps systems of different sizes from being taken for each other


class BatchNeighbors:
    """One `SkinNeighbors` for each system of a batch.

    Systems have no names: the next batch may lack some, hold others, or have another order. Each
    is paired with the list of the system it looks most like, and that list decides from positions
    and cell alone whether it is safe. A wrong pairing costs a search, never an edge.

    Attributes:
        builds: number of searches so far, over all systems.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        """Start without lists.

        Args:
            cutoff: Å.
            skin: Å, 0 or more.

        Raises:
            ValueError: a skin that is negative or not finite.
        """
        self.builds = 0
        self._empty = SkinNeighbors(cutoff, skin)
        self._lists: list[SkinNeighbors] = []
        self._marks: Floats = np.empty((0, 16))
        self._parts: list[NeighborList] = []
        self._joined: NeighborList | None = None

    def edges(
        self, positions: Floats, sizes: Integers, cells: Floats, pbc: NDArray[np.bool_]
    ) -> NeighborList:
        """Edges that include every pair within the cutoff, and others up to the skin.

        Args:
            positions: (N, 3) Å, system after system.
            sizes: (G,) numbers of atoms, none of them 0.
            cells: (G, 3, 3) Å, rows are lattice vectors.
            pbc: (3,) bool.

        Returns:
            Edges between the N atoms, sorted by receiver; the same object as in the last call where
            all lists are still safe.
        """
        ends = np.cumsum(sizes)
        starts = ends - sizes
        self._lists = self._paired(_marks(positions, starts, ends, cells))
        parts = []
        for number, (neighbors, start, end) in enumerate(
            zip(self._lists, starts, ends, strict=True)
        ):
            before = neighbors.builds
            parts.append(neighbors.edges(positions[start:end], cells[number], pbc))
            self.builds += neighbors.builds - before
        same = len(parts) == len(self._parts) and all(map(_is, parts, self._parts))
        if self._joined is None or not same:
            self._joined = _join(parts, starts)
        self._parts = parts
        return self._joined

    def _paired(self, marks: Floats) -> list[SkinNeighbors]:
        """A list for each system: that of its place in the batch, or the most similar one's."""
        old, self._marks = self._marks, marks
        if not self._lists:
            return [copy(self._empty) for _ in marks]
        if marks.shape == old.shape:
            strange = np.abs(marks - old).max(axis=1) > max(self._empty.skin, 0.1)
        else:
            strange = np.ones(len(marks), dtype=bool)
        place = np.arange(len(marks))
        if strange.any():
            place[strange] = cKDTree(old).query(marks[strange])[1]
        # Copies, because two systems may look most like the same one.
        lists = zip(place, strange, strict=True)
        return [copy(self._lists[k]) if new else self._lists[k] for k, new in lists]


def _marks(positions: Floats, starts: Integers, ends: Integers, cells: Floats) -> Floats:
    """What tells systems apart, (G, 16) Å: size, cell, first and last atom."""
    sizes = APART * (ends - starts)[:, None]
    return np.hstack([sizes, cells.reshape(-1, 9), positions[starts], positions[ends - 1]])


def _join(parts: list[NeighborList], starts: Integers) -> NeighborList:
    """Edges of systems as edges of one graph whose atoms begin at ``starts``."""
    offsets = np.repeat(starts, [len(part.senders) for part in parts])
    return NeighborList(
        np.concatenate([part.senders for part in parts]) + offsets,
        np.concatenate([part.receivers for part in parts]) + offsets,
        np.concatenate([part.shifts for part in parts]),
    )


def _is(one: NeighborList, other: NeighborList) -> bool:
    return one is other
