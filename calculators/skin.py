"""Neighbour lists with a skin, reused while no unlisted pair can be within the cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from tesseral.data.cells import complete_cell
from tesseral.data.graph import AtomicGraph
from tesseral.data.neighbors import NeighborList, Search, check_density, neighbor_list
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.message_passing import MessagePassing

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

APART = 100.0  # Å per atom; makes systems of different sizes distinct


class SkinNeighbors:
    """Neighbour list with a skin, reused while that is provably safe.

    Write an atom's position as the deformed reference position plus its own displacement,
    ``r = r0 F + u`` with ``F`` the deformation of the cell. Then a pair vector is
    ``d = d0 F + u_j - u_i`` and ``|d| ≥ σ_min(F) |d0| - |u_i| - |u_j|``. A pair that is not listed
    had ``|d0| > cutoff + skin``, so it is beyond the cutoff as long as
    ``σ_min(F) (cutoff + skin) - (two largest |u|) ≥ cutoff``. Only differences of u matter, so a
    common drift is subtracted first.

    Attributes:
        builds: number of searches so far.
    """

    def __init__(self, cutoff: float, skin: float, search: Search | None = None) -> None:
        """Start without a list.

        Args:
            cutoff: cutoff (Å).
            skin: skin (Å), 0 or more. With 0 the list is rebuilt whenever atoms come closer.
            search: search on a GPU, see ``neighbor_list``. Default: on the CPU.

        Raises:
            ValueError: the skin is negative or not finite.
        """
        if not (np.isfinite(skin) and skin >= 0):
            raise ValueError(f"skin is {skin} Å; use a distance of 0 or more, usually 0.3 to 1")
        self.cutoff = cutoff
        self.skin = skin
        self.search = search
        self.builds = 0
        self._edges: NeighborList | None = None
        self._positions: Floats = np.empty((0, 3))
        self._cell: Floats = np.empty((3, 3))
        self._pbc: NDArray[np.bool_] = np.zeros(3, dtype=bool)

    def edges(self, positions: Floats, cell: Floats, pbc: NDArray[np.bool_]) -> NeighborList:
        """Edges with every pair within the cutoff, and some pairs within the skin.

        Args:
            positions: (N, 3) Å.
            cell: (3, 3) Å, rows are lattice vectors.
            pbc: (3,) bool.

        Returns:
            The edges; the same object as in the last call if it is still valid.
        """
        # Directions without periodicity have no shifts, so their vectors may change freely.
        lattice = complete_cell(cell, pbc)
        if self._edges is None or not self.is_safe(positions, lattice, pbc):
            self._edges = neighbor_list(positions, cell, pbc, self.cutoff + self.skin, self.search)
            self._positions, self._cell, self._pbc = positions.copy(), lattice, pbc.copy()
            self.builds += 1
        return self._edges

    def forget(self) -> None:
        """Discard the list; the next call rebuilds it."""
        self._edges = None

    def is_safe(self, positions: Floats, lattice: Floats, pbc: NDArray[np.bool_]) -> bool:
        """Whether the list is still valid for these positions and this completed cell."""
        atoms = len(positions)
        if self._edges is None or not atoms or atoms != len(self._positions):
            return False
        if bool((pbc != self._pbc).any()):
            return False
        before, now = (self._positions, self._cell[None]), (positions, lattice[None])
        reach = self.cutoff, self.skin
        return bool(_are_safe(before, now, np.zeros(1, np.int64), np.array([atoms]), *reach)[0])

    def known(self) -> tuple[NeighborList, Floats, Floats]:
        """The list, and the positions (N, 3) and completed cell (3, 3) for which it was made."""
        assert self._edges is not None
        return self._edges, self._positions, self._cell


def _are_safe(
    before: tuple[Floats, Floats],
    now: tuple[Floats, Floats],
    starts: Integers,
    sizes: Integers,
    cutoff: float,
    skin: float,
) -> NDArray[np.bool_]:
    """Whether the lists of G systems are still valid, (G,); see `SkinNeighbors`.

    Args:
        before: positions (N, 3) and lattices (G, 3, 3) for which the lists were made, Å.
        now: the present ones.
        starts: (G,) first atom of each system.
        sizes: (G,) numbers of atoms, none of them 0.
        cutoff: cutoff (Å).
        skin: skin (Å).
    """
    (reference, old), (positions, lattices) = before, now
    system = np.repeat(np.arange(len(sizes)), sizes)
    smallest: NDArray[np.floating] = np.ones(len(sizes))
    if not np.array_equal(lattices, old):
        deformations = np.linalg.solve(old, lattices)
        smallest = np.linalg.svd(deformations, compute_uv=False)[:, -1]
        reference = np.matmul(reference[:, None], deformations[system])[:, 0]
    moved = positions - reference
    moved -= (np.add.reduceat(moved, starts) / sizes[:, None])[system]
    lengths = np.sqrt(np.einsum("ij,ij->i", moved, moved))
    largest = np.maximum.reduceat(lengths, starts)
    most = lengths == largest[system]
    second = np.maximum.reduceat(np.where(most, 0.0, lengths), starts)
    alone = np.add.reduceat(most, starts, dtype=np.int64) == 1
    second = np.where(alone, second, largest)
    return np.asarray(smallest * (cutoff + skin) - largest - second >= cutoff)


class BatchNeighbors:
    """One `SkinNeighbors` for each system of a batch.

    Systems have no identifiers: the next batch may have fewer, other or reordered systems. Each
    system is paired with the list of the most similar one, and that list checks by positions and
    cell alone whether it is still valid. A wrong pairing costs a search but never loses an edge.

    Attributes:
        builds: number of searches so far, over all systems.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        """Start without lists.

        Args:
            cutoff: cutoff (Å).
            skin: skin (Å), 0 or more.

        Raises:
            ValueError: the skin is negative or not finite.
        """
        self.builds = 0
        self._empty = SkinNeighbors(cutoff, skin)
        self._lists: list[SkinNeighbors] = []
        self._marks: Floats = np.empty((0, 16))
        self._made_for: tuple[Floats, Floats] | None = None  # None if the systems are others
        self._pbc: NDArray[np.bool_] = np.zeros(3, dtype=bool)
        self._joined: NeighborList | None = None

    def edges(
        self, positions: Floats, sizes: Integers, cells: Floats, pbc: NDArray[np.bool_]
    ) -> NeighborList:
        """Edges with every pair within the cutoff, and some pairs within the skin.

        Args:
            positions: (N, 3) Å, system after system.
            sizes: (G,) numbers of atoms, none of them 0.
            cells: (G, 3, 3) Å, rows are lattice vectors.
            pbc: (3,) bool.

        Returns:
            Edges between the N atoms, sorted by receiver; the same object as in the last call if
            all lists are still valid.
        """
        ends = np.cumsum(sizes)
        starts = ends - sizes
        self._pair(_marks(positions, starts, ends, cells))
        lattices = cells if pbc.all() else np.stack([complete_cell(cell, pbc) for cell in cells])
        if self._made_for is not None and bool((pbc == self._pbc).all()):
            reach = self._empty.cutoff, self._empty.skin
            now = positions, lattices
            stale = ~_are_safe(self._made_for, now, starts, sizes, *reach)
        else:
            systems = zip(self._lists, starts, ends, lattices, strict=True)
            stale = np.array([not n.is_safe(positions[a:b], c, pbc) for n, a, b, c in systems])
        if stale.any() or self._made_for is None or self._joined is None:
            self._made_for = None  # a search may raise an error after others have replaced lists
            for number in np.flatnonzero(stale):
                at = positions[starts[number] : ends[number]]
                self._lists[number].forget()
                self._lists[number].edges(at, cells[number], pbc)
                self.builds += 1
            parts, places, boxes = zip(*(each.known() for each in self._lists), strict=True)
            self._joined = _join(parts, starts)
            self._made_for, self._pbc = (np.concatenate(places), np.stack(boxes)), pbc.copy()
        return self._joined

    def _pair(self, marks: Floats) -> None:
        """Choose a list for each system: that of its place, or of the most similar system."""
        old, self._marks = self._marks, marks
        if not self._lists:
            self._lists = [copy(self._empty) for _ in marks]
            return
        if marks.shape == old.shape:
            strange = np.abs(marks - old).max(axis=1) > max(self._empty.skin, 0.1)
        else:
            strange = np.ones(len(marks), dtype=bool)
        if not strange.any():
            return
        place = np.arange(len(marks))
        place[strange] = cKDTree(old).query(marks[strange])[1]
        # Copies, because two systems may be most similar to the same one.
        lists = zip(place, strange, strict=True)
        self._lists = [copy(self._lists[k]) if new else self._lists[k] for k, new in lists]
        self._made_for = None


class GpuNeighbors:
    """Neighbour lists of the systems of a batch, which are made and checked on a GPU.

    All are made anew when one is no longer valid, since one search takes little more time for all
    than for one. The condition is that of `SkinNeighbors` with simpler bounds: twice the largest
    |u|, and 1 - |F - 1| (Frobenius norm) for σ_min(F).

    Attributes:
        builds: number of searches so far, of all systems at once.
    """

    def __init__(self, potential: MessagePassing, cutoff: float, skin: float) -> None:
        """Start without lists.

        Args:
            potential: potential that is computed by the kernels for GPUs.
            cutoff: cutoff (Å).
            skin: skin (Å), 0 or more.
        """
        self.builds = 0
        self._potential, self._cutoff, self._skin = potential, cutoff, skin
        self._edges: tuple[Tensor, Tensor, Tensor] | None = None
        self._made_for: AtomicGraph | None = None
        self._inverses = torch.empty(0, 3, 3)
        self._pbc: NDArray[np.bool_] = np.zeros(3, dtype=bool)

    def with_edges(self, graph: AtomicGraph, pbc: NDArray[np.bool_]) -> AtomicGraph:
        """The graph with every pair within the cutoff, and some pairs within the skin.

        Args:
            graph: atoms and cells on the device of the potential; no system is empty.
            pbc: (3,) bool.

        Returns:
            The graph; its edges are the same tensors as in the last call if they are still valid.

        Raises:
            ValueError: a cell is far too small for its atoms.
        """
        if self._edges is None or not self._are_safe(graph, pbc):
            self._edges = None
            self._edges = self._search(graph, pbc)
            kept = graph.positions.clone(), graph.cell.clone()  # the caller may change its own
            self._made_for = graph._replace(positions=kept[0], cell=kept[1])
            self._pbc = pbc.copy()
            self.builds += 1
        senders, receivers, shifts = self._edges
        return graph._replace(senders=senders, receivers=receivers, shifts=shifts)

    def _are_safe(self, graph: AtomicGraph, pbc: NDArray[np.bool_]) -> bool:
        before = self._made_for
        assert before is not None
        same = len(graph.cell) == len(before.cell) and bool((pbc == self._pbc).all())
        if not same or graph.structure.shape != before.structure.shape:
            return False
        systems, structure = len(graph.cell), graph.structure
        deformations = self._inverses @ graph.cell
        if pbc.all():
            unit = torch.eye(3, dtype=deformations.dtype, device=deformations.device)
            smallest = 1 - (deformations - unit).flatten(1).norm(dim=1)
            turned = (before.positions.unsqueeze(2) * deformations[structure]).sum(dim=1)
        else:  # the completed cells would have to be compared
            smallest = torch.where((graph.cell == before.cell).flatten(1).all(dim=1), 1.0, -1.0)
            turned = before.positions
        sizes = torch.bincount(structure, minlength=systems)
        moved = graph.positions - turned
        drift = torch.segment_reduce(moved, "mean", lengths=sizes, unsafe=True)
        lengths = (moved - drift[structure]).norm(dim=1)
        largest = torch.segment_reduce(lengths, "max", lengths=sizes, unsafe=True)
        safe = smallest * (self._cutoff + self._skin) - 2 * largest >= self._cutoff
        return bool(safe.all() & (structure == before.structure).all())

    def _search(self, graph: AtomicGraph, pbc: NDArray[np.bool_]) -> tuple[Tensor, Tensor, Tensor]:
        cells = graph.cell.cpu().numpy()
        boxes = cells if pbc.all() else np.stack([complete_cell(cell, pbc) for cell in cells])
        inverses = torch.from_numpy(np.linalg.inv(boxes))
        self._inverses = inverses.to(graph.cell.device)
        reach = self._cutoff + self._skin

        def check(sizes: Tensor, heights: Tensor) -> None:
            rooms = heights.numpy() + np.where(pbc, 0.0, 0.5 * reach)
            check_density(sizes.numpy(), rooms, pbc, reach)

        return gpu.find_neighbors(
            self._potential,
            graph.positions,
            graph.structure,
            torch.from_numpy(boxes),
            inverses,
            torch.tensor(pbc),
            reach,
            check,
        )


def _marks(positions: Floats, starts: Integers, ends: Integers, cells: Floats) -> Floats:
    """Numbers that distinguish systems, (G, 16) Å: size, cell, first and last atom."""
    sizes = APART * (ends - starts)[:, None]
    return np.hstack([sizes, cells.reshape(-1, 9), positions[starts], positions[ends - 1]])


def _join(parts: Sequence[NeighborList], starts: Integers) -> NeighborList:
    """Edges of systems as edges of one graph whose atoms begin at ``starts``."""
    offsets = np.repeat(starts, [len(part.senders) for part in parts])
    return NeighborList(
        np.concatenate([part.senders for part in parts]) + offsets,
        np.concatenate([part.receivers for part in parts]) + offsets,
        np.concatenate([part.shifts for part in parts]),
    )
