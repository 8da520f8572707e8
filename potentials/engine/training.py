"""Training of Facet without a tape: energies and their gradient, differentiable by the weights.

A loss of energies E and forces is a function of E and of g, the gradient of E by the harmonics and
lengths of the edges. With a = dL/dE and u = dL/dg, its gradient by the weights is that of

    a · E + u · g,  where u · g is the change of E as harmonics and lengths move along u.

Hence four passes over the layers, made of a few operators: those of ``ops`` on a CPU, those of
``gpu/training`` on a GPU.

1. ``forward``: energies;
2. ``backward``: their gradient by the edges;
3. ``move``: the change of all features along u, and the derivatives of u · g that depend on it;
4. ``collect``: gradients by the weights.

All functions but the readouts are linear in each of their arguments. Autograd makes the same calls
of kernels through 137 nodes of Python, which take more than half of the time of a step on five
molecules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from tesseral.data.graph import Edges
from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.blocks.readout import EnergyScale, Readout
from tesseral.potentials.blocks.sphere import EdgeFeatures, degree_of
from tesseral.potentials.engine import facet
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import convolution_operators as convolutions
from tesseral.potentials.ops.operators import linear, outer, product
from tesseral.potentials.ops.wanted_gradients import gradients_of


def applies(potential: object) -> bool:
    """Whether a potential can be trained this way: Facet with compiled kernels on the CPU."""
    return (
        isinstance(potential, MessagePassing)
        and potential.harmonics.fused
        and potential.embedding.is_cpu
        and all(isinstance(layer, FacetLayer) for layer in potential.layers)
        and all(isinstance(readout, Readout) for readout in potential.readouts)
        and facet.can_pack(list(potential.layers))
    )


def energies_and_gradient(
    potential: MessagePassing, species: Tensor, edges: Edges
) -> tuple[Tensor, Tensor]:
    """Energies (N,) eV of the atoms and the gradient (E, 3) eV/Å of their sum by the edge vectors.

    Both can be differentiated with respect to the weights, but not to the vectors.

    Args:
        potential: potential for which ``applies`` is true.
        species: (N,) as in ``MessagePassing.forward``.
        edges: edges between the atoms.
    """
    vectors = edges.vectors.detach().requires_grad_(True)
    features, seen, energies = potential.begin(
        species, edges._replace(vectors=vectors), species.shape[0]
    )
    elements = potential.elements_of(species)
    operators = CpuOperators(EdgeFeatures(*(part.detach() for part in seen)), elements)
    parts = potential.layers, potential.readouts, potential.scale
    own, *by_edges = _Layers.apply(  # type: ignore[no-untyped-call]
        Inputs(*parts, operators, elements), features, *weights_of(potential)
    )
    outputs, gradients = [seen.harmonics, seen.radii], by_edges
    if energies.requires_grad:  # pair energies, which have no weights
        outputs.append(energies)
        gradients.append(torch.ones_like(energies))
    with gradients_of("geometry"):
        (gradient,) = torch.autograd.grad(outputs, [vectors], gradients, create_graph=True)
    return energies.detach() + own, gradient


ByEdges = tuple[Tensor, ...]
"""Numbers for each edge: gradients by it, or a direction along which it moves."""


class Convolution(Protocol):
    """``SplineConvolution`` in the four passes, which are called one after the other."""

    by_edges: ByEdges  # of ``backward``
    by_coefficients: Tensor  # of ``collect``

    def forward(self, features: Tensor) -> Tensor:
        """Messages from features."""

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient by the features."""

    def move(self, change: Tensor, along: ByEdges) -> Tensor:
        """Change of the messages."""

    def collect(self, gradient: Tensor) -> Tensor:
        """Gradient by the features, with that of ``move``."""


class Operators(Protocol):
    """Operators on a device, for the edges and elements of a batch."""

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """A matrix for each degree: (N, M, C) by (l_max + 1, C, D) to (N, M, D)."""

    def outer(self, x: Tensor, g: Tensor) -> Tensor:
        """Gradient of ``linear`` by the weight: (N, M, C) and (N, M, D) to (l_max + 1, C, D)."""

    def product(self, a: Tensor, b: Tensor, l_out: int) -> Tensor:
        """Product of functions on the sphere up to a degree: (N, (l_out + 1)², C)."""

    def by_element(self, values: Tensor, like: Tensor) -> Tensor:
        """Sums over the atoms of each element: (N, C) to (S, C), the shape of ``like``."""

    def convolution(self, module: SplineConvolution) -> Convolution:
        """A convolution over the edges."""


class CpuOperators:
    """The compiled operators of ``ops``."""

    linear, outer, product = staticmethod(linear), staticmethod(outer), staticmethod(product)

    def __init__(self, edges: EdgeFeatures, elements: Tensor) -> None:
        """Keep the edges and the elements (N,) of a batch."""
        self._edges, self._elements = edges, elements

    def by_element(self, values: Tensor, like: Tensor) -> Tensor:
        """As in `Operators`."""
        return torch.zeros_like(like).index_add_(0, self._elements, values)

    def convolution(self, module: SplineConvolution) -> Convolution:
        """As in `Operators`."""
        return _Convolution(module, self._edges, len(self._elements))


class Inputs(NamedTuple):
    """Inputs of the layers without a gradient."""

    layers: nn.ModuleList
    readouts: nn.ModuleList
    scale: EnergyScale
    operators: Operators
    elements: Tensor  # (N,)


def weights_of(potential: MessagePassing) -> list[Tensor]:
    """The weights of layers and readouts, in the order of ``Passes.gradients``."""
    weights: list[Tensor] = []
    for module, readout in zip(potential.layers, potential.readouts, strict=True):
        layer = cast("FacetLayer", module)
        weights += [layer.convolution.coefficients, layer.message.weight, layer.skip.weight]
        for mixing in facet.mixings_of(layer):
            second = cast("DegreeLinear", mixing.second)
            weights += [mixing.enter.weight, second.weight, mixing.leave.weight, mixing.bias]
        weights += readout.parameters()
    return weights


class _Layers(torch.autograd.Function):
    """Energies of the layers, and their gradients by the harmonics and lengths of the edges."""

    @staticmethod
    def forward(ctx: Any, inputs: Inputs, features: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run = Passes(inputs)
        energies = run.forward(features.detach())
        # Other tensors than those that the context keeps: it would keep itself, and never be freed.
        return energies, *(part.detach() for part in run.backward())

    @staticmethod
    def backward(ctx: Any, by_energies: Tensor, *along: Tensor) -> tuple[Tensor | None, ...]:
        run = ctx.run
        run.move(tuple(part.contiguous() for part in along))
        by_features = run.collect(by_energies)
        return None, by_features, *run.gradients()


class Passes:
    """One evaluation of the layers, whose methods are called in the order of the module's text."""

    def __init__(self, inputs: Inputs) -> None:
        """Prepare; nothing is computed yet."""
        self.layers = [
            _Layer(cast("FacetLayer", layer), inputs.operators, inputs.elements)
            for layer in inputs.layers
        ]
        self.readouts = [_Readout(cast("Readout", each)) for each in inputs.readouts]
        self.units = inputs.scale.scale[inputs.elements]  # (N,) eV of one unit of the readouts

    def forward(self, features: Tensor) -> Tensor:
        """Energies (N,) eV float64 from the features (N, 1, C) of the first layer."""
        self.start, self.scale = features, self.units.to(features.dtype)
        readings = torch.zeros_like(self.scale)
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            features = layer.forward(features)
            readings += readout.forward(features[:, 0])
        self.end = features
        return (self.scale * readings).double()

    def backward(self) -> ByEdges:
        """Gradients of the sum of the energies by the edges."""
        gradient = torch.zeros_like(self.end)
        by_edges: ByEdges = ()
        for layer, readout in zip(reversed(self.layers), reversed(self.readouts), strict=True):
            gradient[:, 0] += readout.backward(self.scale)
            gradient = layer.backward(gradient)
            own = layer.convolution.by_edges
            by_edges = tuple(map(torch.add, by_edges, own)) if by_edges else own
        return by_edges

    def move(self, along: ByEdges) -> None:
        """Change of everything along the given directions of the edges."""
        change = torch.zeros_like(self.start)
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            change = layer.move(change, along)
            readout.move(change[:, 0])

    def collect(self, by_energies: Tensor) -> Tensor:
        """Gradient by the features of the first layer; those by the weights are kept."""
        given = by_energies.to(self.scale) * self.scale
        gradient = torch.zeros_like(self.end)
        for layer, readout in zip(reversed(self.layers), reversed(self.readouts), strict=True):
            gradient[:, 0] += readout.collect(given)
            gradient = layer.collect(gradient)
        return gradient

    def gradients(self) -> list[Tensor]:
        """Gradients of ``weights_of``."""
        pairs = zip(self.layers, self.readouts, strict=True)
        return [each for layer, readout in pairs for each in (*layer.gradients(), *readout.by)]


class _Layer:
    """``FacetLayer``."""

    def __init__(self, layer: FacetLayer, operators: Operators, elements: Tensor) -> None:
        self.convolution = operators.convolution(layer.convolution)
        self.message, self.skip = (
            _Linear(linear, operators) for linear in (layer.message, layer.skip)
        )
        self.mixings = [_Mixing(each, operators, elements) for each in facet.mixings_of(layer)]

    def forward(self, features: Tensor) -> Tensor:
        field = self.message.forward(self.convolution.forward(features))
        field[:, : features.shape[1]] += self.skip.forward(features)
        self.rows = features.shape[1]
        for mixing in self.mixings:
            mixed = mixing.forward(field)
            field = mixed.add_(field[:, : mixed.shape[1]])
        return field

    def backward(self, gradient: Tensor) -> Tensor:
        for mixing in reversed(self.mixings):
            inner = mixing.backward(gradient)
            inner[:, : gradient.shape[1]] += gradient
            gradient = inner
        through = self.skip.backward(gradient[:, : self.rows])
        return through.add_(self.convolution.backward(self.message.backward(gradient)))

    def move(self, change: Tensor, along: ByEdges) -> Tensor:
        field = self.message.move(self.convolution.move(change, along))
        field[:, : self.rows] += self.skip.move(change)
        for mixing in self.mixings:
            mixed = mixing.move(field)
            field = mixed.add_(field[:, : mixed.shape[1]])
        return field

    def collect(self, gradient: Tensor) -> Tensor:
        for mixing in reversed(self.mixings):
            inner = mixing.collect(gradient)
            inner[:, : gradient.shape[1]] += gradient
            gradient = inner
        through = self.skip.collect(gradient[:, : self.rows])
        return through.add_(self.convolution.collect(self.message.collect(gradient)))

    def gradients(self) -> list[Tensor]:
        return [
            self.convolution.by_coefficients,
            self.message.by_weight,
            self.skip.by_weight,
            *(each for mixing in self.mixings for each in mixing.gradients()),
        ]


class _Convolution:
    """``SplineConvolution``."""

    def __init__(self, convolution: SplineConvolution, edges: EdgeFeatures, n_atoms: int) -> None:
        self.edges, self.coefficients = edges, convolution.coefficients.detach()
        self.options = convolution.cutoff, convolution.l_max_out, n_atoms

    def forward(self, features: Tensor) -> Tensor:
        harmonics, radii, senders, receivers = self.edges
        self.inputs = (
            *(features, harmonics, radii, self.coefficients, senders, receivers),
            *self.options,
        )
        return convolutions.convolve(convolutions.SUMMED, *self.inputs)

    def backward(self, gradient: Tensor) -> Tensor:
        self.gradient = gradient
        by_features, *by_edges, _ = convolutions.convolve_backward(
            convolutions.SUMMED, gradient, *self.inputs, True, False
        )
        self.by_edges = tuple(by_edges)  # harmonics (E, M), radii (E,)
        return by_features

    def move(self, change: Tensor, along: ByEdges) -> Tensor:
        moved, self.by_features, _, _, self.by_coefficients = convolutions.convolve_twice(
            *(convolutions.SUMMED, self.gradient, *self.inputs),
            *(change, *along, None, False, True),
        )
        return moved

    def collect(self, gradient: Tensor) -> Tensor:
        by_features, _, _, by_coefficients = convolutions.convolve_backward(
            convolutions.SUMMED, gradient, *self.inputs, False, True
        )
        self.by_coefficients += by_coefficients
        return by_features.add_(self.by_features)


class _Linear:
    """``DegreeLinear``."""

    def __init__(self, module: DegreeLinear, operators: Operators) -> None:
        self.scale, self.operators = module.scale, operators
        self.weight = module.scale * module.weight.detach()
        self.transposed = self.weight.transpose(1, 2).contiguous()

    def forward(self, features: Tensor) -> Tensor:
        self.features = features
        return self.operators.linear(features, self.weight)

    def backward(self, gradient: Tensor) -> Tensor:
        self.gradient = gradient
        return self.operators.linear(gradient, self.transposed)

    def move(self, change: Tensor) -> Tensor:
        self.by_weight = self.operators.outer(change, self.gradient)
        return self.operators.linear(change, self.weight)

    def collect(self, gradient: Tensor) -> Tensor:
        self.by_weight.add_(self.operators.outer(self.features, gradient)).mul_(self.scale)
        return self.operators.linear(gradient, self.transposed)


class _Mixing:
    """``SphereMixing`` of products of two fields; the bias is a constant function on the sphere."""

    def __init__(self, mixing: SphereMixing, operators: Operators, elements: Tensor) -> None:
        linears = mixing.enter, cast("DegreeLinear", mixing.second), mixing.leave
        self.enter, self.second, self.leave = (_Linear(each, operators) for each in linears)
        self.product = _Product(mixing.l_max_out, operators)
        self.bias, self.elements, self.operators = mixing.bias.detach(), elements, operators

    def forward(self, features: Tensor) -> Tensor:
        entered = self.enter.forward(features)
        entered[:, 0] += self.bias[self.elements]
        return self.leave.forward(self.product.forward(entered, self.second.forward(features)))

    def backward(self, gradient: Tensor) -> Tensor:
        by_entered, by_second = self.product.backward(self.leave.backward(gradient))
        return self.enter.backward(by_entered).add_(self.second.backward(by_second))

    def move(self, change: Tensor) -> Tensor:
        moved = self.product.move(self.enter.move(change), self.second.move(change))
        return self.leave.move(moved)

    def collect(self, gradient: Tensor) -> Tensor:
        by_entered, by_second = self.product.collect(self.leave.collect(gradient))
        self.by_bias = self.operators.by_element(by_entered[:, 0], self.bias)
        return self.enter.collect(by_entered).add_(self.second.collect(by_second))

    def gradients(self) -> Sequence[Tensor]:
        return *(each.by_weight for each in (self.enter, self.second, self.leave)), self.by_bias


class _Product:
    """Pointwise product of two functions on the sphere, up to a degree."""

    def __init__(self, l_out: int, operators: Operators) -> None:
        self.l_out, self.product = l_out, operators.product

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        self.first, self.second = first, second
        self.l_in = degree_of(first.shape[1])
        return self.product(first, second, self.l_out)

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        self.gradient = gradient
        return self._by(gradient, self.second), self._by(gradient, self.first)

    def move(self, first: Tensor, second: Tensor) -> Tensor:
        self.by_first = self._by(self.gradient, second)
        self.by_second = self._by(self.gradient, first)
        moved = self.product(first, self.second, self.l_out)
        return moved.add_(self.product(self.first, second, self.l_out))

    def collect(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        by_first = self._by(gradient, self.second).add_(self.by_first)
        return by_first, self._by(gradient, self.first).add_(self.by_second)

    def _by(self, gradient: Tensor, other: Tensor) -> Tensor:
        """Gradient by one factor, since the integral of three functions is symmetric in them."""
        return self.product(gradient, other, self.l_in)


class _Readout:
    """``Readout``: y = w · x + b + v · silu(z), z = H x + h."""

    def __init__(self, readout: Readout) -> None:
        self.linear, self.hidden, self.output = (
            module.weight.detach() for module in (readout.linear, readout.hidden, readout.output)
        )
        self.shift, self.bias = readout.linear.bias.detach(), readout.hidden.bias.detach()
        self.by: list[Tensor] = []  # in the order of ``Readout.parameters``

    def forward(self, scalars: Tensor) -> Tensor:
        self.scalars = scalars
        self.z = z = torch.addmm(self.bias, scalars, self.hidden.T)
        self.sigmoid = torch.sigmoid(z)
        self.silu = z * self.sigmoid
        return scalars @ self.linear[0] + self.shift + self.silu @ self.output[0]

    def backward(self, scale: Tensor) -> Tensor:
        self.scale = scale.unsqueeze(1)
        self.slope = self.sigmoid * (1 + self.z - self.silu)  # silu'
        self.by_z = self.scale * self.output * self.slope
        return torch.addmm(self.scale * self.linear, self.by_z, self.hidden)

    def move(self, change: Tensor) -> None:
        self.change = change
        self.z_change = change @ self.hidden.T
        curvature = self.sigmoid * (1 - self.sigmoid) * (2 + self.z - 2 * self.silu)  # silu''
        self.by_moved_z = self.scale * self.output * curvature * self.z_change

    def collect(self, given: Tensor) -> Tensor:
        given = given.unsqueeze(1)
        by_z = (given * self.output * self.slope).add_(self.by_moved_z)
        by_output = given * self.silu + self.scale * self.slope * self.z_change
        self.by = [
            (given * self.scalars + self.scale * self.change).sum(0, keepdim=True),
            given.sum(0),
            torch.addmm(self.by_z.T @ self.change, by_z.T, self.scalars),
            by_z.sum(0),
            by_output.sum(0, keepdim=True),
        ]
        return torch.addmm(given * self.linear, by_z, self.hidden)
