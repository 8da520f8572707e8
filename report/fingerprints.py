"""Invariant features of the atoms of a dataset, as the model computes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tesseral.data.graph import Edges, edges_of
from tesseral.data.loading.datasets import labelled_graph
from tesseral.data.store.read import Store
from tesseral.deploy.modelfile import ModelCard
from tesseral.potentials.message_passing import MessagePassing

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_ATOMS = 20_000


class Fingerprints(NamedTuple):
    """Invariant features of N atoms."""

    features: Floats  # (N, D)
    species: Integers  # (N,)
    structure: Integers  # (N,) index of the structure in the store


def fingerprints(potential: MessagePassing, card: ModelCard, store: Store) -> Fingerprints:
    """Inputs of the readouts, for all structures or an even sample of a large set.

    Args:
        potential: a potential on any device.
        card: its model card.
        store: structures with elements that the model knows.
    """
    rows = np.arange(len(store))
    share = MOST_ATOMS / max(1, int(store.n_atoms.sum()))
    if share < 1:
        rows = np.unique(
            np.linspace(0, len(store) - 1, max(1, int(share * len(store)))).astype(int)
        )
    caught: list[torch.Tensor] = []
    hooks = [
        readout.register_forward_pre_hook(lambda _, given: caught.append(given[0].double().cpu()))
        for readout in potential.readouts
    ]
    parts, species, structure = [], [], []
    try:
        for row in rows:
            graph = labelled_graph(store[int(row)], card.elements, potential.cutoff).graph
            device = potential.embedding.device
            with torch.no_grad():
                edges = Edges(*(part.to(device) for part in edges_of(graph)))
                potential(graph.species.to(device), edges)
            parts.append(torch.cat(caught, dim=1).numpy())
            caught.clear()
            species.append(graph.species.numpy())
            structure.append(np.full(len(graph.species), row))
    finally:
        for hook in hooks:
            hook.remove()
    return Fingerprints(np.concatenate(parts), np.concatenate(species), np.concatenate(structure))
