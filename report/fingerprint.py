"""How the model itself sees each atom: its invariant features, and distances between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tesseral.data.graph import Edges, edges_of
from tesseral.data.loading.datasets import labelled_graph
from tesseral.data.store.read import Store
from tesseral.deploy.modelfile import ModelCard
from tesseral.potentials.message_passing import MessagePassing

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_ATOMS = 20_000
KEPT = 0.999  # of the variance, by the components that are kept
MOST_COMPONENTS = 12  # more make the search slow and the distances alike
FOLDS = 5


class Fingerprints(NamedTuple):
    """Invariant features of N atoms."""

    features: Floats  # (N, D)
    species: Integers  # (N,)
    structure: Integers  # (N,) row of the store


class Distances(NamedTuple):
    """Nearest neighbours in the space of the features, in units of the typical spread."""

    test: Floats  # (N,) of each test atom to the training set
    train: Floats  # (M,) of training atoms to the training structures of other folds


def fingerprints(potential: MessagePassing, card: ModelCard, store: Store) -> Fingerprints:
    """Features that enter the readouts, for all structures or an even sample of a large set.

    Args:
        potential: on any device.
        card: of the potential.
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


def distances(test: Fingerprints, train: Fingerprints) -> Distances:
    """Distance of each atom to the nearest training atom of its element.

    Per element, features are rotated to the principal components of the training set and divided
    by their spread. The distances within the training set are between its parts, never within one
    structure, so that they are like those of new structures.
    """
    far = np.full(len(test.species), np.inf)
    within = np.full(len(train.species), np.inf)
    for kind in np.unique(np.concatenate([test.species, train.species])):
        mine, known = test.species == kind, train.species == kind
        if not known.any():
            continue
        project = _whitening(train.features[known])
        points = project(train.features[known])
        if mine.any():
            far[mine] = cKDTree(points).query(project(test.features[mine]))[0]
        fold = train.structure[known] % FOLDS
        inner = np.full(len(points), np.inf)
        for part in range(FOLDS):
            if (fold == part).any() and (fold != part).any():
                tree = cKDTree(points[fold != part])
                inner[fold == part] = tree.query(points[fold == part])[0]
        within[known] = inner
    return Distances(far, within)


def _whitening(features: Floats) -> Callable[[Floats], Floats]:
    """A function that standardises features along the principal components of these."""
    mean = features.mean(axis=0)
    _, sizes, axes = np.linalg.svd(features - mean, full_matrices=False)
    variance = np.square(sizes)
    total = variance.sum()
    if not total > 0:
        return lambda values: values - mean
    kept = int(np.searchsorted(np.cumsum(variance) / total, KEPT)) + 1
    kept = min(kept, MOST_COMPONENTS, int((variance > 1e-12 * variance[0]).sum()))
    scale = axes[:kept].T * (np.sqrt(len(features)) / sizes[:kept])
    return lambda values: (values - mean) @ scale
