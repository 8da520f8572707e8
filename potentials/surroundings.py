"""Energies of some atoms from those around them, each layer only where it matters.

With L layers the energy of an atom depends on the atoms within L steps along edges. Layer number l,
counted from 0, is needed only for atoms within L - 1 - l steps of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tesseral.data.graph import AtomicGraph, Edges, edge_vectors
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.message_passing import MessagePassing


class Surroundings(NamedTuple):
    """M atoms, or images of atoms, sorted by the number of steps from the first ones."""

    atoms: Tensor  # (M,)    index of each atom in the graph that they are part of
    edges: Edges  # between the M atoms
    counts: list[int]  # numbers of atoms that each layer computes, one for each layer


def central_energies(
    potential: MessagePassing, species: Tensor, edges: Edges, counts: Sequence[int]
) -> Tensor:
    """Energies of the first atoms of a graph.

    Args:
        potential: the potential.
        species: (M,) as in ``MessagePassing.forward``.
        edges: edges whose receivers are among the first ``counts[0]`` atoms.
        counts: number of atoms, the first ones, that each layer computes; not increasing. An edge
            to an atom that a layer computes starts at one that the layer before computes.

    Returns:
        (counts[-1],) eV, float64.
    """
    features, seen, energies = potential.begin(species, edges, counts[0])
    for number, count in enumerate(counts):
        end = int(torch.searchsorted(seen.receivers, count))
        seen = EdgeFeatures(*(part[:end] for part in seen))
        known = species[: features.shape[0]]
        features, more = potential.layer(number, features, known, seen, count)
        energies = energies[:count] + more
    return energies


def surroundings(edges: Edges, n_atoms: int, start: int, layers: int) -> Surroundings:
    """Part of a graph that the second derivatives by the position of one atom depend on.

    An energy that depends on the atom belongs to one within L steps of it, and depends itself on
    atoms within L steps. So layer number l is needed within 2L - 1 - l steps.

    Args:
        edges: edges of the graph, in both directions between any two atoms.
        n_atoms: number of atoms of the graph.
        start: index of the atom.
        layers: L.
    """
    steps = torch.full((n_atoms,), 2 * layers + 1, device=edges.senders.device)
    steps[start] = 0
    for step in range(1, 2 * layers + 1):
        reached = edges.senders[steps[edges.receivers] == step - 1]
        steps[reached] = steps[reached].clamp(max=step)
    order = steps.argsort(stable=True)
    counts = [int((steps < 2 * layers - layer).sum()) for layer in range(layers)]
    place = torch.empty_like(order)
    place[order] = torch.arange(n_atoms, device=order.device)
    senders, receivers = place[edges.senders], place[edges.receivers]
    kept = (receivers < counts[0]).nonzero().squeeze(1)
    kept = kept[receivers[kept].argsort(stable=True)]
    atoms = order[: int((steps <= 2 * layers).sum())]
    return Surroundings(atoms, Edges(edges.vectors[kept], senders[kept], receivers[kept]), counts)


def unfolded(graph: AtomicGraph, layers: int) -> tuple[Surroundings, Tensor]:
    """The atoms of a structure with all images of atoms that their energies depend on.

    Args:
        graph: graph of one structure, with the edges within the cutoff.
        layers: L.

    Returns:
        The atoms, which come first, with their images; and the positions of all, (M, 3) Å.
    """
    n_atoms, device = len(graph.positions), graph.positions.device
    shifts = graph.shifts.round().to(torch.int64)
    base = 2 * (layers * int(shifts.abs().max()) if len(shifts) else 0) + 1
    weights = n_atoms * torch.tensor([1, base, base * base], device=device)

    def keys(atoms: Tensor, cells: Tensor) -> Tensor:
        """A number for each image of an atom."""
        return atoms + (cells * weights).sum(1)

    numbers = torch.bincount(graph.receivers, minlength=n_atoms)
    starts = numbers.cumsum(0) - numbers
    atoms = torch.arange(n_atoms, device=device)
    cells = torch.zeros(n_atoms, 3, dtype=torch.int64, device=device)
    known, first = keys(atoms, cells), 0
    counts: list[int] = []
    listed, senders, receivers = [], [], []
    for _ in range(layers):
        counts.insert(0, len(atoms))
        own = numbers[atoms[first:]]
        ends = torch.arange(first, len(atoms), device=device).repeat_interleave(own)
        before = own.cumsum(0) - own
        edge = torch.arange(len(ends), device=device) + (
            starts[atoms[first:]] - before
        ).repeat_interleave(own)
        first = len(atoms)
        sender, cell = graph.senders[edge], cells[ends] - shifts[edge]
        found = keys(sender, cell)
        listed.append(edge)
        senders.append(found)
        receivers.append(ends)
        new = found.argsort()
        new = new[~torch.isin(found[new], known)]
        one = new[:1]  # of each image, of which several edges may start
        one = torch.cat([one, new[1:][found[new].diff() != 0]])
        atoms, cells = torch.cat([atoms, sender[one]]), torch.cat([cells, cell[one]])
        known = torch.cat([known, found[one]])
    order = known.argsort()
    place = order[torch.searchsorted(known[order], torch.cat(senders))]
    edges = Edges(edge_vectors(graph)[torch.cat(listed)], place, torch.cat(receivers))
    positions = graph.positions[atoms] + cells.to(graph.cell.dtype) @ graph.cell[0]
    return Surroundings(atoms, edges, counts), positions
