"""The course of a call, which the kernels of all architectures have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tesseral.data.graph import Edges
from tesseral.potentials.engine.gpu.geometry import Begun, Geometry, KeptLists, Kernels, Lists
from tesseral.potentials.engine.gpu.source import AnySizes
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.message_passing import MessagePassing


class LayerKernels(ABC):
    """A potential with its weights in the layout of the kernels.

    Attributes:
        sizes: its sizes.
        lists: the edges of each atom of the last call.
        exchange: called between the layers where the rows of ghosts, atoms of other processes in
            LAMMPS, are exchanged: ``spread`` sets them to those of their owners, ``clear`` to zero,
            and ``gather`` adds them to those of their owners.
    """

    sizes: AnySizes

    def __init__(self, potential: MessagePassing, kernels: Kernels) -> None:
        """Keep parts of the potential, but not the potential.

        A cache of these objects may forget it.

        Args:
            potential: potential for which ``supports`` is true.
            kernels: kernels compiled for ``sizes_of(potential)``.
        """
        self._run, self._scale = kernels, potential.scale
        self._known_errors = potential.uncertainty
        self._geometry = Geometry(potential, kernels)
        self.lists = KeptLists()
        self.exchange: Callable[[str, Tensor], None] = lambda kind, rows: None

    @torch.no_grad()
    def evaluate(self, species: Tensor, edges: Edges) -> AtomicResults:
        """Energies, forces and virials.

        Args:
            species: (N,) index into the elements.
            edges: edges between the atoms, on the device of the potential. Those beyond the cutoff
                have no effect.
        """
        return self.with_lists(species, edges.vectors, self.lists(edges, len(species)))

    @torch.no_grad()
    def with_lists(self, species: Tensor, vectors: Tensor, lists: Lists) -> AtomicResults:
        """The same from vectors (E, 3) Å of the edges and their lists."""
        begun = self._geometry.begin(species, vectors, lists)
        kept, uncertainty = self._forward(species, begun)
        forces, virials = self._geometry.forces(begun, self._backward(begun, kept))
        return AtomicResults(begun.energies, forces, virials, uncertainty)

    @abstractmethod
    def _forward(self, species: Tensor, begun: Begun) -> tuple[list[Any], Tensor | None]:
        """Add the energies of the layers; what their gradients need, and the uncertainty."""

    @abstractmethod
    def _backward(self, begun: Begun, kept: list[Any]) -> Tensor:
        """Gradients by lengths and harmonics of the edges, (E, M)."""
