"""Graph of one or many structures, its labels, and functions of graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AtomicGraph(NamedTuple):
    """G structures as one graph of N atoms and E directed edges. Lengths in Å."""

    positions: Tensor  # (N, 3)     float64
    species: Tensor  # (N,)       index into the model's element list
    structure: Tensor  # (N,)       index of each atom's structure, sorted
    cell: Tensor  # (G, 3, 3)  float64, rows are lattice vectors; zeros without a cell
    senders: Tensor  # (E,)
    receivers: Tensor  # (E,)       sorted
    shifts: Tensor  # (E, 3)     float64, whole lattice translations of the receiver


class Edges(NamedTuple):
    """E directed edges between atoms with their vectors, the only geometry a potential needs."""

    vectors: Tensor  # (E, 3)  Å, float64, sender to receiver
    senders: Tensor  # (E,)
    receivers: Tensor  # (E,)    sorted


class Labels(NamedTuple):
    """DFT labels of the G structures of a graph. A missing label is NaN."""

    energy: Tensor  # (G,)       eV, float64
    forces: Tensor  # (N, 3)     eV/Å, float64
    stress: Tensor  # (G, 3, 3)  eV/Å³, float64, positive under tension


class Batch(NamedTuple):
    """Graph, its labels, and the row of each structure in the dataset."""

    graph: AtomicGraph
    labels: Labels
    index: Tensor  # type: ignore[assignment]  # (G,)  row of the store, for error messages


def edge_vectors(graph: AtomicGraph) -> Tensor:
    """Sender-to-receiver vectors, (E, 3) Å, differentiable in positions and cell."""
    cell = graph.cell[graph.structure[graph.senders]]
    translation = torch.einsum("ei,eij->ej", graph.shifts, cell)
    return graph.positions[graph.receivers] - graph.positions[graph.senders] + translation


def edges_of(graph: AtomicGraph) -> Edges:
    """Edges of a graph with their vectors."""
    return Edges(edge_vectors(graph), graph.senders, graph.receivers)


def atom_counts(graph: AtomicGraph) -> Tensor:
    """Number of atoms of each structure, (G,)."""
    return counts_of(graph.structure, graph.cell.shape[0])


def counts_of(sorted_numbers: Tensor, n: int) -> Tensor:
    """How often each number from 0 to n - 1 occurs; unlike ``bincount``, no GPU is waited for."""
    ends = torch.arange(n + 1, dtype=sorted_numbers.dtype, device=sorted_numbers.device)
    return torch.searchsorted(sorted_numbers, ends).diff()


def join_graphs(graphs: Sequence[AtomicGraph]) -> AtomicGraph:
    """Join graphs into one; atoms and structures are renumbered in order."""
    atoms = structures = 0
    shifted = []
    for graph in graphs:
        shifted.append(
            (graph.structure + structures, graph.senders + atoms, graph.receivers + atoms)
        )
        atoms += graph.positions.shape[0]
        structures += graph.cell.shape[0]
    return AtomicGraph(
        positions=torch.cat([graph.positions for graph in graphs]),
        species=torch.cat([graph.species for graph in graphs]),
        structure=torch.cat([part[0] for part in shifted]),
        cell=torch.cat([graph.cell for graph in graphs]),
        senders=torch.cat([part[1] for part in shifted]),
        receivers=torch.cat([part[2] for part in shifted]),
        shifts=torch.cat([graph.shifts for graph in graphs]),
    )


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Join batches into one; the collate function of the data loader."""
    return Batch(
        graph=join_graphs([batch.graph for batch in batches]),
        labels=Labels(
            *(torch.cat(parts) for parts in zip(*(b.labels for b in batches), strict=True))
        ),
        index=torch.cat([batch.index for batch in batches]),
    )
