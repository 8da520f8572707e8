"""The layers of NequIP as the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tesseral.potentials.architectures.nequip import NequIPLayer
from tesseral.potentials.blocks.flat import FlatLinear
from tesseral.potentials.engine.memory import Memory, packed_readout
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import NequIPLayerWeights, NequIPWeights, PotentialWeights
from tesseral.potentials.ops.padding import columns
from tesseral.potentials.ops.tables import is_compiled

Groups = list[list[int]]  # by degree, numbers of channels that are padded separately


def can_pack(layers: Sequence[nn.Module]) -> bool:
    """Whether all paths were compiled."""
    paths = [path for layer in layers for path in cast("NequIPLayer", layer).convolution.paths]
    return all(is_compiled(path) for path in paths)


def pack(potential: MessagePassing, memory: Memory, struct: PotentialWeights) -> None:
    """Set the part of the struct of a potential that describes its layers."""
    modules = cast("list[NequIPLayer]", list(potential.layers))
    layers = [_layer(module, memory, first=module is modules[0]) for module in modules]
    for number, layer in enumerate(layers):
        layer.readout = packed_readout(potential, number, memory)
    # Messages and self-connections of the first layer are tables by element.
    first, embedding = modules[0], potential.embedding[:, 0]
    scalars = sum(first.channels)
    sent = first.enter(embedding)
    field = first.keep(embedding, torch.arange(len(embedding)))[:, :scalars]
    convolution = first.convolution
    weights = NequIPWeights(
        memory.keep((NequIPLayerWeights * len(layers))(*layers)),
        memory.address(_place(sent, 1, [convolution.channels_in[0]], memory)),
        memory.address(_place(field, 1, first.channels, memory)),
        memory.address(convolution.pieces),
        memory.address(convolution.first),
        convolution.coefficients[0].shape[0],
        first.silu_gates,
    )
    struct.nequip = ctypes.pointer(memory.keep(weights))
    struct.intervals = convolution.pieces.shape[0]


def _layer(module: NequIPLayer, memory: Memory, first: bool) -> NequIPLayerWeights:
    convolution = module.convolution
    paths, l_out = convolution.paths, len(convolution.channels_out) - 1
    incoming: Groups = [[number] for number in convolution.channels_in]
    message: Groups = [
        [number for path, number in zip(paths, convolution.channels) if path[2] == degree]
        for degree in range(l_out + 1)
    ]
    # Columns of the field: the scalars and the gates of each degree, then the degrees.
    field: Groups = [list(module.channels), *([number] for number in module.channels[1:])]
    struct = NequIPLayerWeights(
        memory.address(
            _place(
                torch.cat(list(convolution.coefficients), dim=1), 1, convolution.channels, memory
            )
        ),
        memory.integers([degree for path in paths for degree in path]),
        *(
            memory.integers([columns([(1, group)], memory.dtype).width for group in groups])
            for groups in (incoming, message, field)
        ),
    )
    if not first:
        struct.enter, struct.enter_t = _matrices(module.enter, incoming, incoming, memory)
        struct.keep, struct.keep_t = _matrices(module.keep, incoming, field, memory)
        struct.enter_bias = _bias(module.enter, incoming[0], memory)
    struct.leave, struct.leave_t = _matrices(module.leave, message, field, memory)
    struct.leave_bias = _bias(module.leave, field[0], memory)
    if module.norm is not None:
        factors, groups = torch.cat(list(module.norm.weights)), [n for each in field for n in each]
        struct.norm = memory.address(_place(factors, 0, groups, memory))
    struct.n_paths, struct.l_in, struct.l_out = len(paths), len(incoming) - 1, l_out
    struct.keep_species = module.keep.weights[0].shape[0] > 1
    return struct


def _matrices(
    linear: FlatLinear, rows: Groups, columns: Groups, memory: Memory
) -> tuple[int | None, int | None]:
    """The matrices by degree, concatenated, for each element, and their transposes."""
    padded = [
        _place(_place(scale * weight, 1, own_rows, memory), 2, own_columns, memory)
        for scale, weight, own_rows, own_columns in zip(linear.scale, linear.weights, rows, columns)
    ]
    return (
        memory.address(torch.cat([each.flatten(1) for each in padded], dim=1)),
        memory.address(torch.cat([each.transpose(1, 2).flatten(1) for each in padded], dim=1)),
    )


def _bias(linear: FlatLinear, groups: list[int], memory: Memory) -> int | None:
    return None if linear.bias is None else memory.address(_place(linear.bias, 0, groups, memory))


def _place(tensor: Tensor, dim: int, groups: list[int], memory: Memory) -> Tensor:
    """A copy in which each group of channels along a dimension is padded to whole vectors."""
    where = columns([(1, groups)], memory.dtype)
    if where.kept is None:
        return tensor
    room = list(tensor.shape)
    room[dim] = where.width
    return tensor.new_zeros(room).index_copy_(dim, where.kept, tensor)
