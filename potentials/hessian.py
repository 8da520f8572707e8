"""Second derivatives of the energy with respect to positions, one atom after the other.

The product of the Hessian with a displacement is the derivative of the gradient, backwards through
it: with g = dE/d(vector) and the change u of the vectors, it follows from d(g · u)/d(vector). No
displacement has to be chosen, and rounding is that of the derivatives themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from tesseral.data.graph import Edges
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.wanted_gradients import gradients_of
from tesseral.potentials.surroundings import Surroundings, central_energies, surroundings
from tesseral.process import survive_forks

BATCH = 4000  # edges of which products are computed together; small systems are repeated
WORTH = 0.75  # part of all work below which an atom gets a graph of its own


class Rows(NamedTuple):
    """Rows of the Hessian of one atom; zero for all other atoms."""

    atom: int
    columns: Tensor  # (M,)       atoms
    values: Tensor  # (3, M, 3)  eV/Å², float64


def hessian_rows(
    potential: MessagePassing, species: Tensor, edges: Edges, atoms: Sequence[int]
) -> Iterator[Rows]:
    """Second derivatives of the energy by the positions of given atoms and of all others.

    Args:
        potential: potential whose weights do not require gradients.
        species: (N,) index into its elements.
        edges: edges within the cutoff.
        atoms: indices of the n atoms.

    Yields:
        The rows of each atom, in the order of ``atoms``.
    """
    survive_forks()
    layers, number = len(potential.layers), len(species)
    remaining = list(atoms)
    while remaining:
        near = surroundings(edges, number, remaining[0], layers)
        if _work(near) >= WORTH * layers * len(edges.senders):
            break
        yield from _Products(potential, species, near, 1).rows(remaining[:1])
        remaining = remaining[1:]
    if remaining:
        every = torch.arange(number, device=species.device)
        whole = Surroundings(every, edges, [number] * layers)
        copies = min(3 * len(remaining), max(1, BATCH // max(len(edges.senders), 1)))
        products = _Products(potential, species, whole, copies)
        group = max(1, copies // 3)
        for first in range(0, len(remaining), group):
            yield from products.rows(remaining[first : first + group])


def dense(rows: Iterator[Rows], n_rows: int, n_atoms: int) -> NDArray[np.float64]:
    """The rows of ``n_rows`` atoms as a matrix, (3 n_rows, 3 n_atoms) eV/Å²."""
    matrix = np.zeros((n_rows, 3, n_atoms, 3))
    for place, (_, columns, values) in enumerate(rows):
        matrix[place][:, columns.cpu().numpy()] = values.cpu().numpy()
    return matrix.reshape(3 * n_rows, 3 * n_atoms)


def sparse(rows: Iterator[Rows], n_rows: int, n_atoms: int) -> csr_array:
    """The rows of ``n_rows`` atoms as a sparse matrix, (3 n_rows, 3 n_atoms) eV/Å²."""
    parts, places, lengths = [np.empty(0)], [np.empty(0, np.int64)], [0]
    for _, columns, values in rows:
        entries = (3 * columns.cpu().numpy()[:, None] + np.arange(3)).ravel()
        parts.append(values.cpu().numpy().ravel())
        places.append(np.tile(entries, 3))
        lengths += 3 * [len(entries)]
    shape = 3 * n_rows, 3 * n_atoms
    matrix = csr_array((np.concatenate(parts), np.concatenate(places), np.cumsum(lengths)), shape)
    matrix.sort_indices()
    return matrix


def _work(part: Surroundings) -> int:
    """Number of edges that the layers compute, all together."""
    return sum(int(torch.searchsorted(part.edges.receivers, count)) for count in part.counts)


class _Products:
    """Products of the Hessian of a part of a graph with displacements of single atoms."""

    def __init__(
        self, potential: MessagePassing, species: Tensor, part: Surroundings, copies: int
    ) -> None:
        """Compute the gradient, once for all products.

        Args:
            potential: the potential.
            species: (N,) of the whole graph.
            part: the part; more than one copy needs all layers on all atoms.
            copies: number of copies of the part, each for one displacement at a time.
        """
        self.part, self.copies = part, copies
        size, (vectors, senders, receivers) = len(part.atoms), part.edges
        offsets = size * torch.arange(copies, device=species.device).unsqueeze(1)
        with torch.enable_grad(), gradients_of("geometry"):
            self.vectors = vectors.detach().repeat(copies, 1).requires_grad_(True)
            ends = ((offsets + end).flatten() for end in (senders, receivers))
            counts = [copies * count for count in part.counts]
            energies = central_energies(
                potential, species[part.atoms].repeat(copies), Edges(self.vectors, *ends), counts
            )
            self.gradient = torch.autograd.grad(
                [energies.sum()], [self.vectors], create_graph=True, allow_unused=True
            )[0]

    def rows(self, atoms: list[int]) -> Iterator[Rows]:
        """The rows of some atoms of the part."""
        place = {atom: k for k, atom in enumerate(self.part.atoms.tolist())}
        moves = [(place[atom], axis) for atom in atoms for axis in range(3)]
        found = [
            self._products(moves[first : first + self.copies])
            for first in range(0, len(moves), self.copies)
        ]
        values = torch.cat(found).view(len(atoms), 3, -1, 3)
        for atom, rows in zip(atoms, values, strict=True):
            yield Rows(atom, self.part.atoms, rows)

    def _products(self, moves: list[tuple[int, int]]) -> Tensor:
        """Products (n, M, 3) with unit displacements of atoms along axes."""
        _, senders, receivers = self.part.edges
        change = self.vectors.new_zeros(self.copies, len(senders), 3)
        for k, (atom, axis) in enumerate(moves):
            change[k, :, axis] = (receivers == atom).double() - (senders == atom).double()
        rows = self.vectors.new_zeros(self.copies, len(self.part.atoms), 3)
        if self.gradient is not None and self.gradient.requires_grad:
            with gradients_of("geometry"):
                (by_vectors,) = torch.autograd.grad(
                    [self.gradient],
                    [self.vectors],
                    grad_outputs=[change.flatten(0, 1)],
                    retain_graph=True,
                )
            parts = by_vectors.view_as(change)
            rows = rows.index_add(1, receivers, parts).index_add(1, senders, -parts)
        return rows[: len(moves)]
