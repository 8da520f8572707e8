"""Energies, forces and virials of a Facet potential by the kernels of ``csrc``.

The steps are those of ``engine/csrc/facet.h``, with PyTorch's tensors as memory. Which kernels run,
those of a GPU or the same ones compiled for the CPU, is decided by `Kernels`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.readout import Readout
from tesseral.potentials.blocks.uncertainty import Uncertainty
from tesseral.potentials.engine.facet import can_pack, mixings_of
from tesseral.potentials.engine.gpu.geometry import Begun, Kernels
from tesseral.potentials.engine.gpu.layers import LayerKernels
from tesseral.potentials.engine.gpu.source import Sizes
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.tables import L_MAX

MULTIPLE = 16  # of channels in the kernels' arrays


class _Mixing(NamedTuple):
    enter: Tensor
    second: Tensor
    bias: Tensor
    leave: Tensor
    enter_t: Tensor
    second_t: Tensor
    leave_t: Tensor


class _Readout(NamedTuple):
    direct: Tensor
    constant: float
    hidden: Tensor
    hidden_t: Tensor
    shift: Tensor
    output: Tensor


class _Layer(NamedTuple):
    coefficients: Tensor
    message: Tensor
    skip: Tensor
    message_t: Tensor
    skip_t: Tensor
    mixings: list[_Mixing]
    readout: _Readout
    degrees: list[int]  # of the features that enter, of each mixing's result


class _Errors(NamedTuple):
    """What expected force errors need; see `Uncertainty`."""

    factors: list[Tensor]  # (2 C, K) of each layer: of its scalars and of their hidden values
    centers: Tensor
    landmarks: int  # of each element
    calibration: tuple[float, float, float]


class _Kept(NamedTuple):
    """Data of a layer for its gradients."""

    features: Tensor
    fields: list[Tensor]
    by_scalars: Tensor  # gradient of the energy by the scalars of the result


def supports(potential: MessagePassing) -> bool:
    """Whether the kernels can compute a potential."""
    layers = list(potential.layers)
    if not isinstance(layers[0], FacetLayer) or potential.levels > 1:
        return False
    degree = max(potential.harmonics.l_max, layers[0].convolution.l_max_out)
    dtypes = (torch.float32, torch.float64)
    return can_pack(layers) and degree <= L_MAX and potential.embedding.dtype in dtypes


def sizes_of(potential: MessagePassing) -> Sizes:
    """Sizes for which the kernels of a potential are compiled."""
    layers = cast("list[FacetLayer]", list(potential.layers))
    first = layers[0].convolution
    every = [mixing for layer in layers for mixing in mixings_of(layer)]
    return Sizes(
        dtype=potential.embedding.dtype,
        cutoff=potential.cutoff,
        intervals=first.coefficients.shape[0],
        species=potential.n_species,
        l_edge=potential.harmonics.l_max,
        l_max=first.l_max_out,
        channels=padded_to_groups(potential.embedding.shape[2]),
        grid=padded_to_groups(every[0].bias.shape[1]),
        layers=tuple(len(layer.skip.sizes) - 1 for layer in layers),
        mixings=tuple((len(mixing.enter.sizes) - 1, mixing.l_max_out) for mixing in every),
    )


class FacetKernels(LayerKernels):
    """A Facet potential with its weights in the layout of the kernels."""

    @torch.no_grad()
    def __init__(self, potential: MessagePassing, kernels: Kernels) -> None:
        """Copy the weights; arguments as for `LayerKernels`."""
        super().__init__(potential, kernels)
        self.sizes: Sizes = sizes_of(potential)
        self._channels = potential.embedding.shape[2]
        channels, grid = self.sizes.channels, self.sizes.grid
        self._embedding = _pad(potential.embedding[:, 0], channels)
        self._layers = []
        for number, module in enumerate(cast("list[FacetLayer]", list(potential.layers))):
            message, skip = _matrix(module.message), _matrix(module.skip)
            own = mixings_of(module)
            mixings = []
            for mixing in own:
                parts = mixing.enter, cast("DegreeLinear", mixing.second), mixing.leave
                enter, second, leave = map(_matrix, parts)
                turned = map(_transposed, (enter, second, leave))
                mixings.append(_Mixing(enter, second, _pad(mixing.bias, grid), leave, *turned))
            degrees = [len(module.skip.sizes) - 1, *(mixing.l_max_out for mixing in own)]
            self._layers.append(
                _Layer(
                    spline_table(module.convolution, channels)[0],
                    *(message, skip, _transposed(message), _transposed(skip)),
                    mixings,
                    _readout(potential.readouts[number], channels),
                    degrees,
                )
            )

        known, group = self._known_errors, self.sizes.group
        self._errors = (
            None if known is None else _errors(known, self._embedding, self._channels, group)
        )

    def _forward(self, species: Tensor, begun: Begun) -> tuple[list[_Kept], Tensor | None]:
        """Add the energies of the layers; what their gradients need, and the uncertainty."""
        kinds, lists, _, place, energies, _ = begun
        atoms, l_max, lanes = begun.atoms, self.sizes.l_max, self.sizes.group
        count = begun.atom_count
        features, kept, errors = self._atoms(atoms, 0), [], self._errors
        rank = 0 if errors is None else errors.centers.shape[1]
        spots = self._embedding.new_empty(atoms, rank)
        self._run("embed", atoms, lanes, begun.sender_count, kinds, self._embedding, features)
        for number, layer in enumerate(self._layers):
            degree, messages = layer.degrees[0], self._atoms(atoms, l_max)
            if number > 0:
                self.exchange("spread", features)
            self._run(
                f"convolve_{degree}",
                *(atoms, lanes, count, lists.first, lists.senders, *place),
                *(layer.coefficients, features, messages),
            )
            fields = [self._atoms(atoms, l_max)]
            weights = layer.message, layer.skip
            enter = f"enter_field_{degree}"
            self._run(enter, atoms, lanes, count, messages, features, *weights, fields[0])
            del messages
            for mixing, out in zip(layer.mixings, layer.degrees[1:], strict=True):
                fields.append(self._atoms(atoms, out))
                name = f"mix_{l_max}_{out}"
                self._run(name, atoms, lanes, count, kinds, fields[-2], *mixing[:4], fields[-1])
            result, by_scalars = fields.pop(), self._atoms(atoms, 0)
            self._run(
                "read_out",
                *(atoms, lanes, count, kinds, self._scale.scale),
                *(result, result.shape[1] * result.shape[2], *layer.readout),
                *(energies, by_scalars),
            )
            if errors is not None:
                self._run(
                    "add_places",
                    *(atoms, lanes, count, result, result.shape[1] * result.shape[2]),
                    *(layer.readout.hidden, layer.readout.shift, errors.factors[number]),
                    *(rank, int(number > 0), spots),
                )
            kept.append(_Kept(features, fields, by_scalars))
            features = result
        if errors is None:
            return kept, None
        expected = torch.empty_like(energies)
        about = errors.centers, errors.landmarks, rank, *errors.calibration
        self._run("expected_errors", atoms, lanes, count, kinds, spots, *about, expected)
        return kept, expected

    def _backward(self, begun: Begun, kept: list[_Kept]) -> Tensor:
        """Gradients by lengths and harmonics of the edges, (E, M)."""
        kinds, lists, _, place, _, _ = begun
        atoms, l_max, lanes = begun.atoms, self.sizes.l_max, self.sizes.group
        count, by_rows = begun.atom_count, torch.empty_like(place.rows)
        by_out: Tensor | None = None
        for number in reversed(range(len(self._layers))):
            layer, last = self._layers[number], number + 1 == len(self._layers)
            features, fields, scalars = kept.pop()
            by_scalars: Tensor | None = scalars
            pairs = list(zip(layer.mixings, layer.degrees[1:], strict=True))
            for mixing, out in reversed(pairs):
                by_field = self._atoms(atoms, l_max)
                self._run(
                    f"mix_back_{l_max}_{out}",
                    *(atoms, lanes, count, kinds, fields.pop(), by_out, by_scalars),
                    *(*mixing[:3], *mixing[4:], by_field),
                )
                by_out, by_scalars = by_field, None
            by_messages, degree = self._atoms(atoms, l_max), layer.degrees[0]
            by_features = self._atoms(atoms, degree) if number > 0 else None
            weights, leave = (layer.message_t, layer.skip_t), f"leave_field_{degree}"
            if by_features is not None:
                self.exchange("clear", by_features)
            self._run(leave, atoms, lanes, count, by_out, *weights, by_messages, by_features)
            self._run(
                f"pull_{degree}",
                *(atoms, lanes, begun.sender_count, lists.sent, lists.order, lists.receivers),
                *(*place, layer.coefficients, features, by_messages, int(not last)),
                *(by_features, by_rows),
            )
            if by_features is not None:
                self.exchange("gather", by_features)
            by_out = by_features
        return by_rows

    def _atoms(self, atoms: int, degree: int) -> Tensor:
        """Memory for features up to a degree, (N, (l + 1)², C)."""
        shape = atoms, (degree + 1) ** 2, self.sizes.channels
        return self._embedding.new_empty(shape)


def _errors(known: Uncertainty, like: Tensor, channels: int, group: int) -> _Errors:
    """Arrays of an uncertainty in the dtype of the kernels, padded to groups."""
    rank, padded = -(-known.factor.shape[1] // group) * group, padded_to_groups(channels)
    parts = torch.split(known.factor.to(like), channels)  # scalars, hidden values of each layer
    rows = [_pad(part, padded, rank) for part in parts]
    factors = [torch.cat(pair) for pair in zip(rows[::2], rows[1::2], strict=True)]
    centers = _pad(known.center.to(like), len(known.center), rank)
    return _Errors(factors, centers, known.landmarks, known.calibration[:3])


def padded_to_groups(channels: int) -> int:
    """Number of channels in the kernels' arrays."""
    return -(-channels // MULTIPLE) * MULTIPLE


def _pad(tensor: Tensor, *sizes: int) -> Tensor:
    """A contiguous copy, its last dimensions padded with zeros to these sizes."""
    room = []
    for have, want in zip(reversed(tensor.shape), reversed(sizes)):
        room += [0, want - have]
    return nn.functional.pad(tensor.detach(), room).clone(memory_format=torch.contiguous_format)


def _matrix(linear: DegreeLinear) -> Tensor:
    weight = linear.scale * linear.weight
    return _pad(weight, *(padded_to_groups(size) for size in weight.shape[1:]))


def _transposed(matrix: Tensor) -> Tensor:
    return matrix.transpose(1, 2).contiguous()


def spline_table(convolution: SplineConvolution, channels: int) -> tuple[Tensor, Tensor]:
    """Coefficients (K + 3, paths, C) times the factors (paths, 1) of the sums over paths.

    The last three rows are zero.

    Returns:
        The table and the factors.
    """
    coefficients = convolution.coefficients.detach()
    degrees = tuple(path[2] for path in convolution.paths)
    factors = _path_factors(degrees, coefficients.dtype, coefficients.device)
    scaled = coefficients * factors
    return _pad(scaled, scaled.shape[0] + 3, scaled.shape[1], channels), factors


@lru_cache
def _path_factors(degrees: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Square roots of one over the number of paths to the same degree, (paths, 1)."""
    factors = [degrees.count(degree) ** -0.5 for degree in degrees]
    return torch.tensor(factors, dtype=dtype, device=device).unsqueeze(1)


def _readout(module: nn.Module, channels: int) -> _Readout:
    assert isinstance(module, Readout)  # that of all potentials with Facet's layers
    return _Readout(
        _pad(module.linear.weight[0], channels),
        float(module.linear.bias),
        _pad(module.hidden.weight.T, channels, channels),
        _pad(module.hidden.weight, channels, channels),
        _pad(module.hidden.bias, channels),
        _pad(module.output.weight[0], channels),
    )
