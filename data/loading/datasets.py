"""Structures of a store as graphs with labels, cached in memory as far as they fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tesseral.data.graph import Batch, Labels, join_batches
from tesseral.data.loading.statistics import sample
from tesseral.data.neighbors import atomic_graph
from tesseral.data.store.read import Store
from tesseral.data.structures import Structure

Integers = NDArray[np.int64]

MAX_COUNTED = 50_000  # structures whose edges are counted one by one
COUNT_SAMPLE = 2_000
TENSOR_BYTES = 640  # size of a tensor object without its data, measured


def labelled_graph(
    structure: Structure, elements: tuple[int, ...], cutoff: float, index: int = 0
) -> Batch:
    """Convert one structure to a batch.

    Args:
        structure: structure with its labels.
        elements: sorted atomic numbers that the model supports.
        cutoff: cutoff (Å).
        index: row of the structure in the dataset.

    Raises:
        ValueError: an element is not among ``elements``, or positions are not finite.
    """
    graph = atomic_graph(
        structure.numbers, structure.positions, structure.cell, structure.pbc, elements, cutoff
    )
    labels = Labels(
        energy=torch.tensor([structure.energy], dtype=torch.float64),
        forces=torch.from_numpy(structure.forces.astype(np.float64)),
        stress=torch.from_numpy(structure.stress.astype(np.float64)[None]),
    )
    return Batch(graph=graph, labels=labels, index=torch.tensor([index]))


def without_labels(batch: Batch) -> Batch:
    """Copy of a batch with all labels missing."""
    return batch._replace(labels=Labels(*(torch.full_like(part, torch.nan) for part in batch[1])))


def memory_size(batch: Batch) -> int:
    """Bytes of the tensors of a batch, including the tensor objects."""
    tensors = [*batch.graph, *batch.labels, batch.index]
    return sum(TENSOR_BYTES + tensor.element_size() * tensor.numel() for tensor in tensors)


class GraphDataset(Dataset[Batch]):
    """Structures of a store as batches of one.

    Graphs are built at first use and cached up to ``cache_bytes``; the cache is not pickled.

    Args:
        store: the dataset.
        rows: rows of the structures, in this order.
        elements: sorted atomic numbers that the model supports.
        cutoff: cutoff (Å).
        cache_bytes: memory for cached graphs.
        mask_repeats: whether a repeat (a negative number, see `sampler.deal`) has no labels, so
            that no label counts twice.
        theories: levels of theory that the model distinguishes, if any. The species of an atom is
            then ``level × len(elements) + element``.
    """

    def __init__(
        self,
        store: Store,
        rows: Integers,
        elements: tuple[int, ...],
        cutoff: float,
        *,
        cache_bytes: float = 0.0,
        mask_repeats: bool = False,
        theories: tuple[str, ...] = (),
    ) -> None:
        self.theories = theories
        self.store, self.rows = store, rows
        self.elements, self.cutoff = elements, cutoff
        self.cache_bytes, self.mask_repeats = cache_bytes, mask_repeats
        self._cache: dict[int, Batch] = {}
        self._used = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_used": 0}

    def __getitem__(self, number: int) -> Batch:
        """Structure ``number``; a negative number is a repeat of structure ``-1 - number``."""
        if number < 0:
            batch = self[-1 - number]
            return without_labels(batch) if self.mask_repeats else batch
        cached = self._cache.get(number)
        if cached is not None:
            return cached
        row = int(self.rows[number])
        structure = self.store[row]
        try:
            batch = labelled_graph(structure, self.elements, self.cutoff, row)
        except ValueError as error:
            raise ValueError(f"structure {row} of {self.store.path}: {error}") from error
        if self.theories:
            level = self.theories.index(structure.theory)
            graph = batch.graph
            species = graph.species + level * len(self.elements)
            batch = batch._replace(graph=graph._replace(species=species))
        size = memory_size(batch)
        if self._used + size <= self.cache_bytes:
            self._cache[number] = batch
            self._used += size
        return batch

    def edge_counts(self) -> Integers:
        """Number of edges of each structure.

        In sets of more than ``MAX_COUNTED`` structures it is estimated from the number of atoms and
        a sample, on the high side: nine of ten structures of the sample have fewer edges per atom.
        """
        if len(self) <= MAX_COUNTED:
            return np.array([len(self[i].graph.senders) for i in range(len(self))], dtype=np.int64)
        atoms = self.store.n_atoms[self.rows]
        some = sample(np.arange(len(self)), COUNT_SAMPLE)
        each = np.array([len(self[int(i)].graph.senders) for i in some]) / atoms[some]
        return np.ceil(atoms * np.quantile(each, 0.9)).astype(np.int64)


class EvaluationLoader:
    """Batches of a store in its order, each created on request; see `evaluation_loader`."""

    def __init__(self, dataset: GraphDataset, batch_edges: int) -> None:
        self.dataset, self.batch_edges = dataset, batch_edges

    @property
    def n_structures(self) -> int:
        """Total number of structures in all batches."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[Batch]:
        waiting: list[Batch] = []
        edges = 0
        for number in range(len(self.dataset)):
            batch = self.dataset[number]
            more = len(batch.graph.senders)
            if waiting and edges + more > self.batch_edges:
                yield join_batches(waiting)
                waiting, edges = [], 0
            waiting.append(batch)
            edges += more
        if waiting:
            yield join_batches(waiting)


def evaluation_loader(
    store: Store, elements: tuple[int, ...], cutoff: float, batch_edges: int = 20_000
) -> EvaluationLoader:
    """All structures of a store, in its order, in batches of at most ``batch_edges`` edges.

    Args:
        store: the dataset.
        elements: sorted atomic numbers that the model supports.
        cutoff: cutoff (Å).
        batch_edges: limit of the memory; a structure with more edges forms a batch by itself.

    Raises:
        ValueError: the store has an element that the model does not support.
    """
    check_elements(store, elements)
    return EvaluationLoader(
        GraphDataset(store, np.arange(len(store)), elements, cutoff), batch_edges
    )


def check_elements(store: Store, elements: tuple[int, ...]) -> None:
    """Reject a store with other elements.

    Raises:
        ValueError: there are other elements; the message names them.
    """
    from tesseral.data.neighbors import names

    strange = sorted(set(store.elements) - set(elements))
    if strange:
        raise ValueError(
            f"{store.path} has {names(strange)}, which the training set does not have: the model "
            f"supports {names(elements)}; add such structures to the training set or remove these"
        )
