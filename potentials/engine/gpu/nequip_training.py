"""Training of a NequIP potential on a GPU: its convolutions by the kernels of ``csrc``.

Linear maps, gates and readouts are those of PyTorch, differentiated by autograd. The convolution,
which would need memory for each edge and path, is an operator whose gradient can be differentiated:

1. messages from features (``convolve``);
2. their gradient by features and edges (``pull``), for energies;
3. the change of the messages as features and edges move, and the derivatives of u · (gradient of 2)
   by features and radial functions (``move``, ``derive_moved``), for a loss of forces;
4. gradients by features and radial functions (``derive``), for the same loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from tesseral.potentials.architectures.nequip import NequIPLayer, gate
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.engine.gpu.geometry import Begun, Geometry, Kernels, Lists
from tesseral.potentials.engine.gpu.nequip import Groups, padded, polynomials, sizes_of
from tesseral.potentials.engine.gpu.source import NequIPSizes
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.message_passing import MessagePassing


def evaluate(
    potential: MessagePassing, kernels: Kernels, species: Tensor, vectors: Tensor, lists: Lists
) -> AtomicResults:
    """Energies, forces and virials, which can be differentiated with respect to the weights.

    Args:
        potential: potential that ``nequip.supports``.
        kernels: kernels compiled from ``nequip_training_source(sizes_of(potential))``.
        species: (N,) index into the elements.
        vectors: (E, 3) Å.
        lists: the edges of each atom.
    """
    sizes, geometry = sizes_of(potential), Geometry(potential, kernels)
    begun = geometry.begin(species, vectors, lists)
    rows = begun.places.rows.detach().requires_grad_(True)
    elements = torch.arange(sizes.species, device=species.device)
    of_element = (species[:, None] == elements).to(sizes.dtype)  # no atomic additions in gradients
    x, energies = of_element @ potential.embedding[:, 0], begun.energies
    layers = cast("list[NequIPLayer]", list(potential.layers))
    for number, layer in enumerate(layers):
        over = PathsOver(layer.convolution, kernels, sizes, begun, first=number == 0)
        field = layer.leave(over(layer.enter(x), rows)) + layer.keep(x, species)
        if layer.norm is not None:
            field = layer.norm(field)
        x = gate(field, layer.channels, layer.silu_gates)
        if number >= potential.first_readout:
            readout = potential.readouts[number - potential.first_readout]
            energies = energies + potential.scale(readout(x[:, : layer.channels[0]]), species)
    (by_rows,) = torch.autograd.grad(energies.sum(), rows, create_graph=True)
    forces, virials = _Forces.apply(geometry, begun, by_rows)  # type: ignore[no-untyped-call]
    return AtomicResults(energies, forces, virials)


class _Forces(torch.autograd.Function):
    """Forces and virials as functions of the gradients by edges."""

    @staticmethod
    def forward(ctx: Any, geometry: Geometry, begun: Begun, by_rows: Tensor) -> tuple[Tensor, ...]:
        ctx.about = geometry, begun
        return geometry.forces(begun, by_rows.contiguous())

    @staticmethod
    def backward(ctx: Any, by_forces: Tensor, by_virials: Tensor) -> tuple[Tensor | None, ...]:
        geometry, begun = ctx.about
        return None, None, geometry.along(begun, by_forces.contiguous(), by_virials.contiguous())


class PathsOver:
    """A ``PathConvolution`` over the edges of a batch."""

    def __init__(
        self,
        module: PathConvolution,
        kernels: Kernels,
        sizes: NequIPSizes,
        begun: Begun,
        *,
        first: bool,
    ) -> None:
        """Prepare the table of the radial functions.

        Args:
            module: the convolution.
            kernels: the kernels.
            sizes: sizes for which they are compiled.
            begun: atoms and edges.
            first: whether this is the first layer.
        """
        self._module, self._run, self._begun, self._group = module, kernels, begun, sizes.group
        self._degrees, l_out = len(module.channels_in), len(module.channels_out) - 1
        self._name = f"{int(first)}_{l_out}"
        self._into: Groups = [[number] for number in module.channels_in]
        pairs = list(zip(module.paths, module.channels, strict=True))
        self._out: Groups = [
            [number for path, number in pairs if path[2] == degree] for degree in range(l_out + 1)
        ]
        splines = [padded(each, 1, [each.shape[1]], self._group) for each in module.coefficients]
        self._splines = torch.cat(splines, dim=1)  # (S, functions)
        self._known: Tensor | None = None
        self._table = polynomials(module, self._splines.detach())
        self._messages = sum(
            (2 * degree + 1) * padded_size(own, self._group) for degree, own in enumerate(self._out)
        )

    def __call__(self, features: Tensor, rows: Tensor) -> Tensor:
        """Flat rows of messages from those of features, (N, D) to (N, D').

        Args:
            features: what the atoms send.
            rows: those of ``begun.places``, of which the results are functions. Their first column
                stands for the length of an edge.
        """
        memory = to_memory(features, self._into, self._group)
        messages = _Convolve.apply(self, memory, rows, self._splines)  # type: ignore[no-untyped-call]
        return from_memory(messages, self._out, self._group, self._begun.atoms)

    def convolve(self, x: Tensor) -> Tensor:
        """Messages."""
        out = x.new_empty(self._begun.atoms * self._messages)
        self._received("convolve", self._table, x, out)
        return out

    def pull(self, x: Tensor, by_messages: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients by features and edges."""
        by_x, by_rows = torch.empty_like(x), torch.zeros_like(self._begun.places.rows)
        for degree in range(self._degrees):
            about = self._table, x, by_messages, int(degree > 0), by_x, by_rows
            self._sent("pull", about, (degree,))
        return by_x, by_rows

    def move(self, x: Tensor, change: Tensor, along: Tensor) -> Tensor:
        """Change of the messages as features and edges move."""
        out = x.new_empty(self._begun.atoms * self._messages)
        self._received("move", along, self._table, x, change, out)
        return out

    def derive(self, x: Tensor, by_messages: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients by features and, if they are wanted, by spline coefficients (S, functions)."""
        by_x, by_radial = torch.empty_like(x), self._radial(wanted)
        self._sent("derive", (self._table, x, by_messages, by_x, by_radial))
        return by_x, None if by_radial is None else self._values().T @ by_radial

    def derive_moved(
        self, x: Tensor, change: Tensor, along: Tensor, by_messages: Tensor, wanted: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The same of the gradients of ``pull``, times the direction in which these move."""
        by_x, by_radial, by_slopes = torch.empty_like(x), self._radial(wanted), self._radial(wanted)
        about = along, self._table, x, change, by_messages, by_x, by_radial, by_slopes
        self._sent("derive_moved", about)
        if by_radial is None or by_slopes is None:
            return by_x, None
        return by_x, (self._values().T @ by_radial).addmm_(self._basis(along).T, by_slopes)

    def _received(self, name: str, *arguments: Tensor) -> None:
        """Run a kernel that sums over the edges an atom receives."""
        lists = self._begun.lists
        about = lists.first, lists.senders, *self._begun.places, *arguments
        for degree in range(self._degrees):
            self._kernel(name, degree, about)

    def _sent(
        self,
        name: str,
        arguments: Sequence[Tensor | int | None],
        degrees: Sequence[int] | None = None,
    ) -> None:
        """Run a kernel that sums over the edges an atom sends."""
        lists = self._begun.lists
        about = lists.sent, lists.order, lists.receivers, *self._begun.places, *arguments
        for degree in range(self._degrees) if degrees is None else degrees:
            self._kernel(name, degree, about)

    def _kernel(self, name: str, degree: int, arguments: Sequence[Tensor | int | None]) -> None:
        begun = self._begun
        items = begun.atoms, self._group, begun.atom_count, begun.atoms
        self._run(f"{name}_{self._name}_{degree}", *items, *arguments)

    def _radial(self, wanted: bool) -> Tensor | None:
        """Memory for gradients by the radial functions of the edges, zero beyond the cutoff."""
        edges = len(self._begun.vectors)
        return self._splines.new_zeros(edges, self._splines.shape[1]) if wanted else None

    def _values(self) -> Tensor:
        """The splines of the edges (E, S), computed once."""
        if self._known is None:
            self._known = self._basis(None)
        return self._known

    def _basis(self, along: Tensor | None) -> Tensor:
        """The splines of the edges (E, S), or their slopes times the change of the lengths."""
        module, (places, rows) = self._module, self._begun.places
        edges, dtype = len(places), self._splines.dtype
        numbers = torch.arange(edges, device=places.device)
        inside = (places >= 0) & (numbers < self._begun.lists.counts[1])
        zero = torch.zeros((), dtype=dtype, device=places.device)
        index = torch.where(inside, places, 0).long()
        f = torch.where(inside, rows[:, 0], zero)
        one = inside.to(dtype)
        if along is None:
            powers = [one, f, f * f, f * f * f]
        else:
            factor = len(module.pieces) / module.cutoff * torch.where(inside, along[:, 0], zero)
            powers = [zero * f, factor, factor * 2 * f, factor * 3 * f * f]
        four = (module.pieces.to(dtype)[index] @ torch.stack(powers, dim=1).unsqueeze(2)).squeeze(2)
        columns = module.first[index].unsqueeze(1) + torch.arange(4, device=places.device)
        number = self._splines.shape[0]
        return four.new_zeros(edges, number + 4).scatter_(1, columns, four)[:, :number]


class _Convolve(torch.autograd.Function):
    """Messages as functions of features, edges and spline coefficients."""

    @staticmethod
    def forward(ctx: Any, over: PathsOver, x: Tensor, rows: Tensor, splines: Tensor) -> Tensor:
        ctx.over = over
        ctx.save_for_backward(x, rows, splines)
        return over.convolve(x)

    @staticmethod
    def backward(ctx: Any, by_messages: Tensor) -> tuple[Tensor | None, ...]:
        x, rows, splines = ctx.saved_tensors
        by_messages = by_messages.contiguous()
        if torch.is_grad_enabled():  # of energies, for forces, which a loss differentiates
            by_x, by_rows = _Pull.apply(ctx.over, by_messages, x, rows, splines)  # type: ignore[no-untyped-call]
            return None, by_x, by_rows, None
        by_x, by_splines = ctx.over.derive(x, by_messages, ctx.needs_input_grad[3])
        return None, by_x, None, by_splines


class _Pull(torch.autograd.Function):
    """Gradients by features and edges, as functions of the same and of those by messages."""

    @staticmethod
    def forward(
        ctx: Any, over: PathsOver, by_messages: Tensor, x: Tensor, rows: Tensor, splines: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.over = over
        ctx.save_for_backward(by_messages, x)
        return over.pull(x, by_messages)

    @staticmethod
    def backward(ctx: Any, change: Tensor, along: Tensor) -> tuple[Tensor | None, ...]:
        by_messages, x = ctx.saved_tensors
        change, along = change.contiguous(), along.contiguous()
        moved = ctx.over.move(x, change, along)
        wanted = ctx.needs_input_grad[4]
        by_x, by_splines = ctx.over.derive_moved(x, change, along, by_messages, wanted)
        return None, moved, by_x, None, by_splines


def padded_size(parts: Sequence[int], group: int) -> int:
    """Columns of parts that are padded to whole groups."""
    return sum(-(-number // group) * group for number in parts)


def to_memory(rows: Tensor, groups: Groups, group: int) -> Tensor:
    """Flat rows (N, D) in the layout of the kernels: degree after degree, with padded channels."""
    widths = [(2 * degree + 1) * sum(own) for degree, own in enumerate(groups)]
    parts = torch.split(rows, widths, dim=1)
    shaped = [
        part.reshape(len(rows), 2 * degree + 1, sum(own))
        for degree, (part, own) in enumerate(zip(parts, groups, strict=True))
    ]
    every = zip(shaped, groups, strict=True)
    return torch.cat([padded(part, 2, own, group).flatten() for part, own in every])


def from_memory(memory: Tensor, groups: Groups, group: int, atoms: int) -> Tensor:
    """The inverse of ``to_memory``, for a number of atoms."""
    shapes = [(atoms, 2 * degree + 1, padded_size(own, group)) for degree, own in enumerate(groups)]
    parts = torch.split(memory, [n * m * c for n, m, c in shapes])
    results = []
    for part, shape, own in zip(parts, shapes, groups, strict=True):
        part = part.view(shape)
        if padded_size(own, group) > sum(own):
            pieces = torch.split(part, [padded_size([number], group) for number in own], dim=2)
            cut = [piece[:, :, :number] for piece, number in zip(pieces, own, strict=True)]
            part = torch.cat(cut, dim=2)
        results.append(part.flatten(1))
    return torch.cat(results, dim=1)
