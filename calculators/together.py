"""Energies, forces and stresses of many crystals by one call of a potential."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tesseral.calculators.ase import CLOSEST, TesseralCalculator
from tesseral.calculators.skin import BatchNeighbors, GpuNeighbors
from tesseral.data.cells import has_volume
from tesseral.data.graph import AtomicGraph, edges_of
from tesseral.data.neighbors import FARTHEST
from tesseral.potentials.derivatives import predict_edges
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.engine.near_edges import near_edges

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
PERIODIC = np.ones(3, dtype=bool)


class Crystals(NamedTuple):
    """G structures that are periodic in three directions, with N atoms."""

    species: Integers  # (N,) index into the elements of the model
    sizes: Integers  # (G,) numbers of atoms, none of them 0
    positions: Floats  # (N, 3) Å
    cells: Floats  # (G, 3, 3) Å, rows are lattice vectors


class Results(NamedTuple):
    """Results of crystals."""

    energies: Floats  # (G,) eV
    forces: Floats  # (N, 3) eV/Å
    stresses: Floats  # (G, 3, 3) eV/Å³, positive under tension


class Together:
    """Evaluation of many crystals with the potential of a calculator.

    With the kernels for GPUs, neighbours are found on the GPU, else on the CPU.

    Attributes:
        neighbors: the neighbour lists; ``neighbors.builds`` counts the searches.
    """

    def __init__(self, calculator: TesseralCalculator) -> None:
        """Start without neighbour lists; the dispersion of the calculator is not added."""
        self._potential, self._cutoff = calculator.potential, calculator.card.config.cutoff
        self._device, skin = calculator.device, calculator.neighbors.skin
        self.neighbors: BatchNeighbors | GpuNeighbors = (
            GpuNeighbors(self._potential, self._cutoff, skin)
            if gpu.applies(self._potential)
            else BatchNeighbors(self._cutoff, skin)
        )

    def evaluate(self, crystals: Crystals) -> Results | None:
        """Results of all crystals, or None if the calculator may raise an error for one.

        Then atoms overlap or are far away, a cell has no volume or too little for its atoms, a
        result is not finite, or the memory is not enough for all at once.
        """
        try:
            return self._evaluate(crystals)
        except (ValueError, RuntimeError, MemoryError):  # which one it is, the calculator tells
            return None

    def _evaluate(self, crystals: Crystals) -> Results | None:
        species, sizes, positions, cells = crystals
        near = all(np.abs(array).max() <= FARTHEST for array in (positions, cells))  # NaN is not
        if not near or not has_volume(cells).all():
            return None
        graph = self._with_edges(crystals)
        if isinstance(self.neighbors, GpuNeighbors):  # the kernels skip the edges in the skin
            edges = edges_of(graph)
        else:
            edges = near_edges(graph, self._cutoff).edges
        found = predict_edges(self._potential, graph.species, edges, graph.structure, len(sizes))
        squared = edges.vectors.square().sum(dim=1)
        if len(squared) and float(squared.min()) < CLOSEST**2:
            return None
        energies, forces = found.energy.cpu().numpy(), found.forces.cpu().numpy()
        if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
            return None
        volumes = np.abs(np.linalg.det(cells))
        stresses = -found.virial.cpu().numpy() / volumes[:, None, None]
        return Results(energies, forces, stresses)

    def _with_edges(self, crystals: Crystals) -> AtomicGraph:
        """The crystals with the edges of their lists, on the device of the potential."""
        species, sizes, positions, cells = crystals
        numbers = np.repeat(np.arange(len(sizes)), sizes)
        if isinstance(self.neighbors, GpuNeighbors):
            edges = np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3))
        else:
            edges = self.neighbors.edges(positions, sizes, cells, PERIODIC)
        arrays = positions, species, numbers, cells, *edges
        graph = AtomicGraph(*(torch.from_numpy(array).to(self._device) for array in arrays))
        if isinstance(self.neighbors, GpuNeighbors):
            return self.neighbors.with_edges(graph, PERIODIC)
        return graph
