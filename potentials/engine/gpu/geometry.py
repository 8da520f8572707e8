"""Edges as the layers on a GPU see them, energies of pairs, and forces from gradients of edges."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tesseral.data.graph import Edges
from tesseral.potentials.engine.gpu.host import Argument
from tesseral.potentials.message_passing import MessagePassing


class Kernels(Protocol):
    """Compiled kernels, `CudaKernels` or `HostKernels`."""

    def __call__(self, name: str, items: int, lanes: int, *arguments: Argument) -> None:
        """Run a kernel for some items with some lanes for each."""


class Lists(NamedTuple):
    """Edges of each atom, int32."""

    counts: Tensor  # (3,)      atoms that receive, edges, atoms; in LAMMPS, others only send
    senders: Tensor  # (E,)
    receivers: Tensor  # (E,)
    first: Tensor  # (N + 1,)  of the edges that an atom receives
    sent: Tensor  # (N + 1,)  of those that it sends, in `order`
    order: Tensor  # (E,)


class Places(NamedTuple):
    """Edges as the layers see them."""

    intervals: Tensor  # (E,)    int32, of the splines; -1 beyond the cutoff
    rows: Tensor  # (E, M)  positions in the intervals and harmonics


class Begun(NamedTuple):
    """Atoms and edges, and what is known without the layers."""

    kinds: Tensor  # (N,)  int32, index into the elements
    lists: Lists
    vectors: Tensor  # (E, 3)
    places: Places
    energies: Tensor  # (N,)  eV, without those of the layers
    density: Tensor | None  # (N,)  derivative by the density of neighbours, eV

    @property
    def atoms(self) -> int:
        """Number of atoms that there is room for."""
        return len(self.kinds)

    @property
    def atom_count(self) -> Tensor:
        """Number of atoms that receive and have an energy, (1,) on the device."""
        return self.lists.counts[:1]

    @property
    def sender_count(self) -> Tensor:
        """Number of all atoms, (1,) on the device."""
        return self.lists.counts[2:]


class Geometry:
    """The parts of a potential on a GPU that are not its layers; they have no weights."""

    def __init__(self, potential: MessagePassing, kernels: Kernels) -> None:
        """Keep the tables of pairs of elements.

        Args:
            potential: potential for which the kernels are compiled.
            kernels: the kernels.
        """
        self._l_edge, self._dtype = potential.harmonics.l_max, potential.embedding.dtype
        self._run = kernels
        self._scale, self._binding = potential.scale, potential.binding
        nuclei = potential.zbl or potential.short_range
        self._pairs: list[Tensor | None] = [
            None if nuclei is None else nuclei.charge.contiguous(),
            None if nuclei is None else nuclei.inverse_length.contiguous(),
            None if potential.zbl is None else potential.zbl.outer.contiguous(),
            None if potential.short_range is None else potential.short_range.inner.contiguous(),
        ]

    def begin(self, species: Tensor, vectors: Tensor, lists: Lists) -> Begun:
        """Places of edges (E, 3) Å in the splines, harmonics, and energies without the layers."""
        kinds, vectors = species.to(torch.int32), vectors.contiguous()
        atoms, edges, double = len(species), len(vectors), vectors.new_empty
        intervals = torch.empty_like(lists.senders)
        rows = double(edges, (self._l_edge + 1) ** 2, dtype=self._dtype)
        energies, binding = double(atoms), self._binding
        density = None if binding is None else double(atoms)
        begun = Begun(kinds, lists, vectors, Places(intervals, rows), energies, density)
        self._run("edges_forward", *self._edges(begun), self._pairs[3], rows, intervals)
        self._run(
            "atoms_forward",
            *(atoms, 1, lists.counts[:1], lists.first, lists.senders, vectors, kinds),
            *(self._scale.reference_energies, None if binding is None else binding.energies),
            *(*self._pairs, density, energies),
        )
        return begun

    def forces(self, begun: Begun, by_rows: Tensor) -> tuple[Tensor, Tensor]:
        """Forces (N, 3) and virials (N, 3, 3) from gradients by lengths and harmonics, (E, M)."""
        gradient = torch.empty_like(begun.vectors)
        places = begun.places.intervals
        about = *self._pairs, begun.density, places, by_rows, gradient
        self._run("edges_backward", *self._edges(begun), *about)
        lists, atoms = begun.lists, begun.atoms
        forces, virials = gradient.new_empty(atoms, 3), gradient.new_empty(atoms, 3, 3)
        self._run(
            "atoms_backward",
            *(atoms, 1, begun.sender_count, lists.first, lists.sent, lists.order),
            *(begun.vectors, gradient, forces, virials),
        )
        return forces, virials

    def along(self, begun: Begun, by_forces: Tensor, by_virials: Tensor) -> Tensor:
        """Transpose of ``forces``: directions of edges (E, M) from gradients by its results."""
        along = torch.empty_like(begun.places.rows)
        about = self._pairs[3], begun.places.intervals, by_forces, by_virials, along
        self._run("edges_along", *self._edges(begun), *about)
        return along

    def _edges(self, begun: Begun) -> tuple[int, int, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """First arguments of the kernels of edges."""
        lists = begun.lists
        about = begun.vectors, begun.kinds, lists.senders, lists.receivers
        return len(begun.vectors), 1, lists.counts[1:], *about


class KeptLists:
    """Lists of the last call, which is likely to have had the same neighbour list."""

    def __init__(self) -> None:
        """Start without lists."""
        self._kept: tuple[Tensor, Tensor, int, Lists] | None = None

    def __call__(self, edges: Edges, atoms: int) -> Lists:
        """The lists of edges between some atoms."""
        if self._kept is not None:
            senders, receivers, number, lists = self._kept
            if senders is edges.senders and receivers is edges.receivers and number == atoms:
                return lists
        lists = edge_lists(edges, atoms)
        self._kept = edges.senders, edges.receivers, atoms, lists
        return lists


def edge_lists(edges: Edges, atoms: int, counts: Tensor | None = None) -> Lists:
    """Edges of each atom, on the device of the edges.

    Args:
        edges: the edges.
        atoms: number of atoms.
        counts: (3,) int32, see `Lists`, if the arrays have room for more edges.
    """
    senders, receivers = edges.senders.to(torch.int32), edges.receivers.to(torch.int32)
    ends = torch.arange(atoms + 1, dtype=torch.int32, device=senders.device)
    by_receiver, sending = receivers, senders
    if counts is None:
        counts = torch.tensor(
            [atoms, len(senders), atoms], dtype=torch.int32, device=senders.device
        )
    else:  # the others belong to no atom
        others = torch.arange(len(senders), device=senders.device) >= counts[1]
        by_receiver, sending = (each.masked_fill(others, atoms) for each in (receivers, senders))
    by_sender, order = torch.sort(sending, stable=True)
    return Lists(
        counts,
        senders.contiguous(),
        receivers.contiguous(),
        torch.searchsorted(by_receiver, ends, out_int32=True),
        torch.searchsorted(by_sender, ends, out_int32=True),
        order.to(torch.int32),
    )
