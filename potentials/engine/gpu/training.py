"""Training of Facet on a GPU: the operators of ``engine/training``, and forces with their gradient.

The arrays of the kernels have numbers of channels that are multiples of 16; others are padded with
zeros on the way in and cut on the way out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tesseral.data.graph import Edges
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.sphere import degree_of, degree_sizes
from tesseral.potentials.engine import training
from tesseral.potentials.engine.gpu.facet import padded_to_groups, sizes_of, spline_table
from tesseral.potentials.engine.gpu.geometry import Begun, Geometry, Kernels, Lists, edge_lists
from tesseral.potentials.engine.gpu.source import Sizes
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.padding import padded


class Step:
    """Energies, forces and virials of a batch, and their gradients by the weights."""

    def __init__(
        self,
        potential: MessagePassing,
        kernels: Kernels,
        species: Tensor,
        vectors: Tensor,
        lists: Lists,
    ) -> None:
        """Compute nothing yet.

        Args:
            potential: potential that ``facet.supports``.
            kernels: kernels compiled from ``training_source(sizes_of(potential))``.
            species: (N,) index into the elements.
            vectors: (E, 3) Å.
            lists: the edges of each atom.
        """
        sizes = sizes_of(potential)
        self._geometry, self._batch = Geometry(potential, kernels), (species, vectors, lists)
        # Parts of the potential, but not the potential, which a cache of these objects may forget.
        self._parts = potential.layers, potential.readouts, potential.scale
        self._embedding, self._kernels, self._sizes = potential.embedding, kernels, sizes

    @torch.no_grad()
    def forward(self) -> AtomicResults:
        """Energies, forces and virials."""
        self._begun = begun = self._geometry.begin(*self._batch)
        species = self._batch[0]
        self._operators = _Operators(self._kernels, self._sizes, begun, species)
        self._passes = training.Passes(training.Inputs(*self._parts, self._operators, species))
        energies = self._passes.forward(self._embedding[species])
        forces, virials = self._geometry.forces(begun, *self._passes.backward())
        return AtomicResults(begun.energies + energies, forces, virials)

    @torch.no_grad()
    def backward(self, by_results: Sequence[Tensor]) -> list[Tensor]:
        """Gradients by ``trained_weights`` from those by the results."""
        by_energies, *others = by_results
        self._passes.move((self._geometry.along(self._begun, *others),))
        by_features = self._passes.collect(by_energies)
        by_embedding = self._operators.by_element(by_features[:, 0], self._embedding[:, 0])
        return [by_embedding.unsqueeze(1), *self._passes.gradients()]


def trained_weights(potential: MessagePassing) -> list[Tensor]:
    """Weights in the order of ``Step.backward``."""
    return [potential.embedding, *training.weights_of(potential)]


def evaluate(
    potential: MessagePassing, kernels: Kernels, species: Tensor, vectors: Tensor, lists: Lists
) -> AtomicResults:
    """Energies, forces and virials, which can be differentiated with respect to the weights.

    Arguments as for `Step`.
    """
    step = Step(potential, kernels, species, vectors, lists)
    found = _Results.apply(step, *trained_weights(potential))  # type: ignore[no-untyped-call]
    return AtomicResults(*found)


Evaluate = Callable[[MessagePassing, Kernels, Tensor, Tensor, Lists], AtomicResults]
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
"""Largest deviation of gradients for which the kernels are used."""


def deviation(potential: MessagePassing, kernels: Kernels, evaluate: Evaluate = evaluate) -> float:
    """Largest deviation of energies, forces, virial and gradients by the weights from autograd.

    In units of the norm of each array, for six atoms of random elements, some of them beyond the
    cutoff of others, and for the weights of the potential; but readouts are random, since those of
    a new potential are zero.

    Args:
        potential: potential for which there are kernels.
        kernels: the kernels.
        evaluate: function of its architecture, of the arguments of the one above.
    """
    random = torch.Generator().manual_seed(0)
    device, places = potential.embedding.device, [[i, j, 0.0] for i in range(2) for j in range(3)]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64).to(device)

    model = copy.deepcopy(potential).requires_grad_(True)
    with torch.no_grad():
        for weight in model.readouts.parameters():
            weight.copy_(normal(*weight.shape) * weight.shape[-1] ** -0.5)
    positions = torch.tensor(places, dtype=torch.float64, device=device)
    positions, atoms = positions + 0.1 * normal(6, 3), len(places)
    species = torch.randint(potential.n_species, (atoms,), generator=random).to(device)
    receivers, senders = (~torch.eye(atoms, dtype=torch.bool, device=device)).nonzero().T
    vectors = (0.45 * potential.cutoff) * (positions[receivers] - positions[senders])
    vectors.requires_grad_(True)
    edges = Edges(vectors, senders, receivers)
    found = evaluate(model, kernels, species, vectors.detach(), edge_lists(edges, atoms))
    energies = model(species, edges)
    (gradient,) = torch.autograd.grad(energies.sum(), vectors, create_graph=True)
    forces = torch.zeros_like(positions).index_add(0, senders, gradient)
    forces = forces.index_add(0, receivers, -gradient)
    expected = [energies, forces, -vectors.T @ gradient]
    by_kernels = [found.energies, found.forces, found.virials.sum(0)]
    factors = [normal(*each.shape) for each in expected]
    for results in (by_kernels, expected):
        loss = torch.stack([(a * b).sum() for a, b in zip(results, factors, strict=True)]).sum()
        weights = list(model.parameters())
        results.extend(
            torch.autograd.grad(loss, weights, materialize_grads=True, retain_graph=True)
        )
    with torch.no_grad():
        pairs = zip(by_kernels, expected, strict=True)
        parts = [float((one - other).norm() / (other.norm() + 1e-9)) for one, other in pairs]
    return max(parts)


class _Results(torch.autograd.Function):
    """Energies, forces and virials as functions of the weights."""

    @staticmethod
    def forward(ctx: Any, step: Step, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step
        return step.forward()[:3]

    @staticmethod
    def backward(ctx: Any, *by_results: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.step.backward([part.contiguous() for part in by_results])


class _Operators:
    """`training.Operators` by the kernels of ``csrc/training.h``."""

    def __init__(self, kernels: Kernels, sizes: Sizes, begun: Begun, species: Tensor) -> None:
        self._run, self._sizes, self._begun = kernels, sizes, begun
        elements = torch.arange(sizes.species, device=species.device)
        self._of_element = (species == elements[:, None]).to(sizes.dtype)  # (S, N)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        c_in, c_out = (padded_to_groups(size) for size in weight.shape[1:])
        rows = c_in - weight.shape[1]
        matrix = padded(nn.functional.pad(weight, (0, 0, 0, rows)) if rows else weight, c_out)
        out = x.new_empty(*x.shape[:2], c_out)
        name = f"linear_{degree_of(x.shape[1])}"
        self._atoms(name, c_in, c_out, padded(x, c_in), matrix, out)
        return out[:, :, : weight.shape[2]].contiguous()

    def outer(self, x: Tensor, g: Tensor) -> Tensor:
        products = torch.bmm(x.permute(1, 2, 0), g.transpose(0, 1))  # (M, C, D)
        sums = _degrees(degree_of(x.shape[1]), x.dtype, x.device) @ products.flatten(1)
        return sums.view(-1, *products.shape[1:])

    def product(self, a: Tensor, b: Tensor, l_out: int) -> Tensor:
        width = padded_to_groups(a.shape[2])
        out = a.new_empty(a.shape[0], (l_out + 1) ** 2, width)
        name = f"product_{degree_of(a.shape[1])}_{degree_of(b.shape[1])}_{l_out}"
        self._atoms(name, width, padded(a, width), padded(b, width), out)
        return out[:, :, : a.shape[2]].contiguous()

    def by_element(self, values: Tensor, like: Tensor) -> Tensor:
        return self._of_element @ values  # no atomic additions

    def convolution(self, module: SplineConvolution) -> training.Convolution:
        return _Convolution(self._run, self._sizes, self._begun, module)

    def _atoms(self, name: str, *arguments: Tensor | int) -> None:
        begun = self._begun
        self._run(name, begun.atoms, self._sizes.group, begun.atom_count, *arguments)


@lru_cache
def _degrees(l_max: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix that sums components by degree, (l_max + 1, M)."""
    sizes = torch.tensor(degree_sizes(l_max), device=device)
    return torch.eye(l_max + 1, dtype=dtype, device=device).repeat_interleave(sizes, dim=1)


class _Moved(NamedTuple):
    """Derivatives of u · g, for ``collect``."""

    by_features: Tensor
    by_table: Tensor


class _Convolution:
    """`training.Convolution`."""

    by_edges: training.ByEdges
    by_coefficients: Tensor

    def __init__(
        self, kernels: Kernels, sizes: Sizes, begun: Begun, module: SplineConvolution
    ) -> None:
        self._run, self._sizes, self._begun = kernels, sizes, begun
        self._coefficients = module.coefficients.detach()
        self._table, self._factors = spline_table(module, sizes.channels)
        self._channels = self._coefficients.shape[2]

    def forward(self, features: Tensor) -> Tensor:
        self._features = padded(features, self._sizes.channels)
        return self._messages("convolve", self._table, self._features)

    def backward(self, gradient: Tensor) -> Tensor:
        self._gradient = padded(gradient, self._sizes.channels)
        by_features = torch.zeros_like(self._features)
        by_rows = torch.empty_like(self._begun.places.rows)
        self._senders("pull", self._table, self._features, self._gradient, 0, by_features, by_rows)
        self.by_edges = (by_rows,)  # those of edges beyond the cutoff are not set, nor read
        return self._cut(by_features)

    def move(self, change: Tensor, along: training.ByEdges) -> Tensor:
        change, (rows,) = padded(change, self._sizes.channels), along
        moved = self._messages("move", rows, self._table, self._features, change)
        by_features = torch.empty_like(self._features)
        by_radial, by_slopes = self._radial(), self._radial()
        self._senders(
            "derive_moved",
            *(rows, self._table, self._features, change, self._gradient),
            *(by_features, by_radial, by_slopes),
        )
        by_table = self._splines(None).T @ by_radial
        self._moved = _Moved(by_features, by_table.addmm_(self._splines(rows).T, by_slopes))
        return moved

    def collect(self, gradient: Tensor) -> Tensor:
        by_features, by_radial = torch.empty_like(self._features), self._radial()
        given = padded(gradient, self._sizes.channels)
        self._senders("derive", self._table, self._features, given, by_features, by_radial)
        by_table = self._moved.by_table.addmm_(self._splines(None).T, by_radial)
        shape = *self._coefficients.shape[:2], self._sizes.channels
        by_coefficients = by_table.view(shape)[:, :, : self._channels] * self._factors
        self.by_coefficients = by_coefficients.contiguous()
        return self._cut(by_features.add_(self._moved.by_features))

    def _messages(self, name: str, *arguments: Tensor) -> Tensor:
        """Run a kernel that sums over the edges an atom receives."""
        lists, sizes = self._begun.lists, self._sizes
        out = self._features.new_empty(self._begun.atoms, (sizes.l_max + 1) ** 2, sizes.channels)
        self._kernel(name, lists.first, lists.senders, *self._begun.places, *arguments, out)
        return self._cut(out)

    def _senders(self, name: str, *arguments: Tensor | int) -> None:
        """Run a kernel that sums over the edges an atom sends."""
        lists = self._begun.lists
        about = lists.sent, lists.order, lists.receivers, *self._begun.places
        self._kernel(name, *about, *arguments)

    def _kernel(self, name: str, *arguments: Tensor | int) -> None:
        begun = self._begun
        run = f"{name}_{degree_of(self._features.shape[1])}"
        self._run(run, begun.atoms, self._sizes.group, begun.atom_count, *arguments)

    def _radial(self) -> Tensor:
        """Memory for gradients by the radial functions of the edges, zero beyond the cutoff."""
        paths = self._coefficients.shape[1]
        return self._features.new_zeros(len(self._begun.vectors), paths * self._sizes.channels)

    def _splines(self, along: Tensor | None) -> Tensor:
        """The splines (E, K), or their slopes times the change of the lengths."""
        begun, edges = self._begun, len(self._begun.vectors)
        out = self._features.new_zeros(edges, self._sizes.intervals)
        self._run("splines", edges, 1, begun.lists.counts[1:], *begun.places, along, out)
        return out

    def _cut(self, rows: Tensor) -> Tensor:
        return rows[:, :, : self._channels].contiguous()
