"""Energies, forces and virials of a NequIP potential by the kernels of ``csrc``.

The steps are those of ``engine/csrc/nequip.h``. Linear maps by degree are products of matrices, by
PyTorch. Features hold degree after degree, each (N, 2l + 1, C_l); C_l is padded to whole groups of
lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tesseral.potentials.architectures.nequip import NequIPLayer
from tesseral.potentials.blocks.flat import FlatLinear
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.readout import LinearReadout, Readout
from tesseral.potentials.engine.gpu.geometry import Begun, Kernels
from tesseral.potentials.engine.gpu.layers import LayerKernels
from tesseral.potentials.engine.gpu.source import NequIPSizes
from tesseral.potentials.engine.nequip import can_pack
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.tables import L_MAX

Groups = list[list[int]]  # by degree, numbers of channels that are padded separately


class _Rows(NamedTuple):
    """Features, messages or fields of the atoms."""

    memory: Tensor
    degrees: list[Tensor]  # (N (2l + 1), C_l) in the memory


class _Linear(NamedTuple):
    """Matrices by degree, (elements or 1, C, C')."""

    matrices: list[Tensor]
    turned: list[Tensor]  # their transposes
    bias: Tensor | None  # of degree 0


class _Readout(NamedTuple):
    """Linear map and, unless it is None, a network with one hidden layer."""

    direct: Tensor
    constant: float
    hidden: tuple[Tensor, Tensor, Tensor] | None  # (C, C), (C,), (C,)


class _Layer(NamedTuple):
    name: str  # of its kernels
    coefficients: Tensor  # (K, functions, 4)
    enter: _Linear | None  # none in the first layer
    leave: _Linear
    keep: _Linear | None  # none in the first layer
    norm: Tensor | None  # factors of the channels
    readout: _Readout | None
    l_out: int
    messages: list[int]  # channels by degree
    field: list[int]


class _Kept(NamedTuple):
    """Data of a layer for its gradients."""

    sent: _Rows
    field: _Rows
    by_scalars: Tensor | None  # gradient of the energy by the scalars of the result


def supports(potential: MessagePassing) -> bool:
    """Whether the kernels can compute a potential."""
    layers = list(potential.layers)
    if not isinstance(layers[0], NequIPLayer) or potential.levels > 1:
        return False
    dtypes = (torch.float32, torch.float64)
    degree = potential.harmonics.l_max
    return can_pack(layers) and degree <= L_MAX and potential.embedding.dtype in dtypes


def sizes_of(potential: MessagePassing) -> NequIPSizes:
    """Sizes for which the kernels of a potential are compiled."""
    layers = cast("list[NequIPLayer]", list(potential.layers))
    channels = max((layer.channels for layer in layers), key=len)
    group = 32 if all(number % 32 == 0 for number in channels) else 16
    paths = [path for layer in layers for path in layer.convolution.paths]
    return NequIPSizes(
        dtype=potential.embedding.dtype,
        cutoff=potential.cutoff,
        intervals=layers[0].convolution.pieces.shape[0],
        species=potential.n_species,
        l_edge=potential.harmonics.l_max,
        group=group,
        embedded=_padded(potential.embedding.shape[2], group),
        channels=tuple(_padded(number, group) for number in channels),
        layers=len(layers),
        odd=any(sum(path) % 2 for path in paths),
        silu_gates=layers[0].silu_gates,
        keep_by_element=layers[-1].keep.weights[0].shape[0] > 1,
    )


class NequIPKernels(LayerKernels):
    """A NequIP potential with its weights in the layout of the kernels."""

    @torch.no_grad()
    def __init__(self, potential: MessagePassing, kernels: Kernels) -> None:
        """Copy the weights; arguments as for `LayerKernels`."""
        super().__init__(potential, kernels)
        self.sizes: NequIPSizes = sizes_of(potential)
        self._readouts = cast("list[Readout | LinearReadout]", list(potential.readouts))
        self._channels = self._readouts[0].linear.in_features
        modules = cast("list[NequIPLayer]", list(potential.layers))
        group, silent = self.sizes.group, [None] * potential.first_readout
        readouts = [*silent, *(_readout(module, group) for module in self._readouts)]
        self._layers = [
            _layer(module, self.sizes, first=module is modules[0], readout=readout)
            for module, readout in zip(modules, readouts, strict=True)
        ]
        # What the atoms of the first layer send and keep depends on their element only.
        first, embedding = modules[0], potential.embedding[:, 0]
        scalars = sum(first.channels)
        kept = first.keep(embedding, torch.arange(len(embedding), device=embedding.device))
        self._sent = _place(first.enter(embedding), 1, [embedding.shape[1]], group)
        self._field = _place(kept[:, :scalars], 1, list(first.channels), group)

    def _forward(self, species: Tensor, begun: Begun) -> tuple[list[_Kept], Tensor | None]:
        """Add the energies of the layers; what their gradients need, and the uncertainty."""
        lists, place, atoms, lanes = begun.lists, begun.places, begun.atoms, self.sizes.group
        count, unit, kept, scalars = begun.atom_count, self._scale.scale[species], [], []
        features = sent = _given(self._sent[species])
        for layer in self._layers:
            if layer.enter is not None:
                sent = self._rows(atoms, self.sizes.channels)
                self._linear(features, layer.enter, sent)
            messages = self._rows(atoms, layer.messages)
            for degree in range(len(sent.degrees)):
                self._run(
                    f"convolve_{layer.name}_{degree}",
                    *(atoms, lanes, count, atoms, lists.first, lists.senders, *place),
                    *(layer.coefficients, sent.memory, messages.memory),
                )
            field = self._rows(atoms, layer.field)
            self._linear(messages, layer.leave, field)
            del messages
            if layer.keep is not None:
                self._linear(features, layer.keep, field, add_for=begun)
            else:
                field.degrees[0].add_(self._field[species])
            features = self._rows(atoms, self.sizes.channels[: layer.l_out + 1])
            self._run(
                f"open_gates_{layer.l_out}",
                *(atoms, lanes, count, atoms, field.memory, layer.norm, features.memory),
            )
            by_scalars = None
            if layer.readout is not None:
                by_scalars = _read(layer.readout, features.degrees[0], unit, begun.energies)
                scalars.append(features.degrees[0][:, : self._channels])
            kept.append(_Kept(sent, field, by_scalars))
        return kept, self._uncertainty(species, scalars)

    def _uncertainty(self, species: Tensor, scalars: list[Tensor]) -> Tensor | None:
        if self._known_errors is None:
            return None
        rows = [readout.features(x) for readout, x in zip(self._readouts, scalars, strict=True)]
        found: Tensor = self._known_errors(torch.cat(rows, dim=1), species)
        return found

    def _backward(self, begun: Begun, kept: list[_Kept]) -> Tensor:
        """Gradients by lengths and harmonics of the edges, (E, M)."""
        lists, place, atoms, lanes = begun.lists, begun.places, begun.atoms, self.sizes.group
        count, by_rows = begun.atom_count, torch.empty_like(place.rows)
        by_out: _Rows | None = None
        for layer in reversed(self._layers):
            sent, field, by_scalars = kept.pop()
            last = by_out is None
            if by_out is None:
                assert by_scalars is not None  # the last layer has a readout
                by_out = _given(by_scalars)
            elif by_scalars is not None:
                by_out.degrees[0].add_(by_scalars)
            by_field = self._rows(atoms, layer.field)
            self._run(
                f"pull_gates_{layer.l_out}",
                *(atoms, lanes, count, atoms),
                *(field.memory, layer.norm, by_out.memory, by_field.memory),
            )
            by_messages = self._rows(atoms, layer.messages)
            self._linear(by_field, layer.leave, by_messages, turned=True)
            by_sent = None if layer.enter is None else self._rows(atoms, self.sizes.channels)
            for degree in range(len(sent.degrees)):
                self._run(
                    f"pull_{layer.name}_{degree}",
                    *(atoms, lanes, count, atoms),
                    *(lists.sent, lists.order, lists.receivers, *place, layer.coefficients),
                    *(sent.memory, by_messages.memory, int(not last or degree > 0)),
                    *(None if by_sent is None else by_sent.memory, by_rows),
                )
            if by_sent is not None and layer.enter is not None and layer.keep is not None:
                by_out = self._rows(atoms, self.sizes.channels)
                self._linear(by_sent, layer.enter, by_out, turned=True)
                self._linear(by_field, layer.keep, by_out, turned=True, add_for=begun)
        return by_rows

    def _linear(
        self,
        x: _Rows,
        linear: _Linear,
        out: _Rows,
        *,
        turned: bool = False,
        add_for: Begun | None = None,
    ) -> None:
        """Rows times the matrices of each degree, or their transposes.

        Args:
            x: the rows.
            linear: the matrices.
            out: set to the result.
            turned: use the transposes, without the constants.
            add_for: add to ``out`` instead, for the atoms of these.
        """
        every = zip(x.degrees, linear.turned if turned else linear.matrices, out.degrees)
        for degree, (rows, matrices, place) in enumerate(every):
            if len(matrices) > 1:
                assert add_for is not None
                self._run(
                    f"own_linear_{degree}",
                    *(add_for.atoms, self.sizes.group, add_for.atom_count, add_for.kinds),
                    *(rows, matrices, rows.shape[1], place.shape[1], place),
                )
            elif add_for is not None:
                place.addmm_(rows, matrices[0])
            elif degree == 0 and linear.bias is not None and not turned:
                torch.addmm(linear.bias, rows, matrices[0], out=place)
            else:
                torch.mm(rows, matrices[0], out=place)

    def _rows(self, atoms: int, channels: Sequence[int]) -> _Rows:
        """Memory for rows with some channels of each degree."""
        sizes = [atoms * (2 * degree + 1) * number for degree, number in enumerate(channels)]
        memory = self._sent.new_empty(sum(sizes))
        parts = torch.split(memory, sizes)
        shapes = zip(parts, channels, strict=True)
        return _Rows(memory, [part.view(-1, number) for part, number in shapes])


def _given(scalars: Tensor) -> _Rows:
    return _Rows(scalars, [scalars])


def _padded(channels: int, group: int) -> int:
    return -(-channels // group) * group


def padded(tensor: Tensor, dim: int, parts: Sequence[int], group: int) -> Tensor:
    """Each part along a dimension padded with zeros to whole groups."""
    found = []
    for part in torch.split(tensor, list(parts), dim=dim) if len(parts) > 1 else [tensor]:
        room = _padded(part.shape[dim], group) - part.shape[dim]
        behind = [0, 0] * (tensor.ndim - 1 - dim % tensor.ndim)
        found.append(nn.functional.pad(part, [*behind, 0, room]) if room else part)
    return torch.cat(found, dim=dim) if len(found) > 1 else found[0]


def _place(tensor: Tensor, dim: int, groups: Sequence[int], group: int) -> Tensor:
    """A contiguous copy, with parts that are padded."""
    return padded(tensor.detach(), dim, groups, group).clone(memory_format=torch.contiguous_format)


def _layer(
    module: NequIPLayer, sizes: NequIPSizes, first: bool, readout: _Readout | None
) -> _Layer:
    convolution, group = module.convolution, sizes.group
    l_out = len(convolution.channels_out) - 1
    incoming: Groups = [[number] for number in convolution.channels_in]
    pairs = list(zip(convolution.paths, convolution.channels, strict=True))
    message: Groups = [
        [number for path, number in pairs if path[2] == degree] for degree in range(l_out + 1)
    ]
    # Columns of the field: the scalars and the gates of each degree, then the degrees.
    field: Groups = [list(module.channels), *([number] for number in module.channels[1:])]
    splines = [_place(each, 1, [each.shape[1]], group) for each in convolution.coefficients]
    norm = None
    if module.norm is not None:
        every = [number for groups in field for number in groups]
        norm = _place(torch.cat(list(module.norm.weights)), 0, every, group)
    widths = [[sum(_padded(n, group) for n in own) for own in each] for each in (message, field)]
    return _Layer(
        f"{int(first)}_{l_out}",
        polynomials(convolution, torch.cat(splines, dim=1)),
        None if first else _linear_map(module.enter, incoming, incoming, group),
        _linear_map(module.leave, message, field, group),
        None if first else _linear_map(module.keep, incoming, field, group),
        norm,
        readout,
        l_out,
        messages=widths[0],
        field=widths[1],
    )


def polynomials(convolution: PathConvolution, splines: Tensor) -> Tensor:
    """Coefficients of the radial functions by powers of the position in an interval.

    Args:
        convolution: the convolution.
        splines: (S, functions), its spline coefficients.

    Returns:
        (K, functions, 4).
    """
    rows = nn.functional.pad(splines.double(), (0, 0, 0, 4))
    four = rows[convolution.first[:, None] + torch.arange(4, device=rows.device)]
    powers = torch.einsum("kjp,kjf->kfp", convolution.pieces, four)
    return powers.to(splines.dtype).contiguous()


def _linear_map(linear: FlatLinear, rows: Groups, columns: Groups, group: int) -> _Linear:
    matrices = [
        _place(_place(scale * weight, 1, own_rows, group), 2, own_columns, group)
        for scale, weight, own_rows, own_columns in zip(linear.scale, linear.weights, rows, columns)
    ]
    turned = [matrix.transpose(1, 2).contiguous() for matrix in matrices]
    bias = None if linear.bias is None else _place(linear.bias, 0, columns[0], group)
    return _Linear(matrices, turned, bias)


def _readout(module: Readout | LinearReadout, group: int) -> _Readout:
    def place(tensor: Tensor) -> Tensor:
        for dim, size in enumerate(tensor.shape):
            tensor = _place(tensor, dim, [size], group)
        return tensor

    hidden = None
    if isinstance(module, Readout):
        shift, output = module.hidden.bias, module.output.weight[0]
        hidden = place(module.hidden.weight.T), place(shift), place(output)
    return _Readout(place(module.linear.weight[0]), float(module.linear.bias), hidden)


def _read(weights: _Readout, scalars: Tensor, unit: Tensor, energies: Tensor) -> Tensor:
    """Add what is read from scalars (N, C) to the energies; its gradient by the scalars.

    Args:
        weights: of the readout.
        scalars: padded.
        unit: (N,) eV of one unit of the readout.
        energies: (N,) eV.
    """
    energy, gradient = scalars @ weights.direct, weights.direct
    if weights.hidden is not None:
        hidden, shift, output = weights.hidden
        inner = torch.addmm(shift, scalars, hidden)
        gate = inner.sigmoid()
        energy = energy + (inner * gate) @ output
        gradient = gradient + (output * gate * (1 + inner * (1 - gate))) @ hidden.T
    energies.add_(unit * (energy.double() + weights.constant))
    return gradient * unit.to(gradient.dtype).unsqueeze(1)
