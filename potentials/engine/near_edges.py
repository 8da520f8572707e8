"""Edges within the cutoff from a neighbour list with a skin."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

from tesseral.data.graph import AtomicGraph, Edges, edge_vectors
from tesseral.potentials.ops import compiled


class NearEdges(NamedTuple):
    """Edges of a graph that are shorter than the cutoff, in order."""

    edges: Edges
    closest: int | None  # index of the shortest edge of the graph; None if there are no edges


def near_edges(graph: AtomicGraph, cutoff: float) -> NearEdges:
    """Edges within the cutoff of a graph whose neighbour list has a skin.

    Args:
        graph: graph with positions, cell and shifts in float64.
        cutoff: cutoff (Å).

    Raises:
        ValueError: an array of the graph has a wrong type or shape.
    """
    if graph.positions.is_cpu and compiled.available():
        _check(graph)
        return _compiled_near_edges(graph, cutoff)
    vectors = edge_vectors(graph)
    squared = (vectors * vectors).sum(dim=1)
    near = (squared < cutoff**2).nonzero().squeeze(1)
    closest = int(squared.argmin()) if len(squared) else None
    return NearEdges(Edges(vectors[near], graph.senders[near], graph.receivers[near]), closest)


def _check(graph: AtomicGraph) -> None:
    """Check types and shapes, since the compiled form would read beyond the ends of arrays.

    The indices are those of a neighbour list of these atoms; `predict_edges` checks those of
    others.
    """
    atoms, edges = len(graph.positions), len(graph.senders)
    wanted = (
        (graph.positions, torch.float64, (atoms, 3)),
        (graph.cell, torch.float64, (len(graph.cell), 3, 3)),
        (graph.shifts, torch.float64, (edges, 3)),
        (graph.structure, torch.int64, (atoms,)),
        (graph.senders, torch.int64, (edges,)),
        (graph.receivers, torch.int64, (edges,)),
    )
    for values, dtype, shape in wanted:
        if values.dtype != dtype or values.shape != shape:
            raise ValueError(
                f"an array of the graph must be {dtype} of shape {shape}; found {values.dtype} "
                f"{tuple(values.shape)}"
            )


def _compiled_near_edges(graph: AtomicGraph, cutoff: float) -> NearEdges:
    """Compiled form, with one pass over the edges."""
    atoms = graph.positions, graph.cell, graph.structure
    listed = graph.senders, graph.receivers, graph.shifts
    inputs = [tensor.contiguous() for tensor in (*atoms, *listed)]
    edges = graph.senders.shape[0]
    senders, receivers = torch.empty_like(graph.senders), torch.empty_like(graph.senders)
    vectors = graph.positions.new_empty(edges, 3)
    closest = ctypes.c_int64()
    count = compiled.kernels(torch.float64).near_edges(
        *(tensor.data_ptr() for tensor in inputs),
        edges,
        cutoff,
        *(tensor.data_ptr() for tensor in (senders, receivers, vectors)),
        ctypes.addressof(closest),
    )
    index = closest.value if closest.value >= 0 else None
    return NearEdges(Edges(vectors[:count], senders[:count], receivers[:count]), index)
