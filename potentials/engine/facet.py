"""The layers of Facet as the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import cast

from torch import nn

from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.blocks.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.engine.memory import Memory, packed_readout
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import (
    FacetLayerWeights,
    FacetMixingWeights,
    FacetWeights,
    PotentialWeights,
)


def mixings_of(layer: nn.Module) -> list[SphereMixing]:
    """Mixings of a layer, with their type."""
    return cast("list[SphereMixing]", list(cast("FacetLayer", layer).mixings))


def can_pack(layers: Sequence[nn.Module]) -> bool:
    """Whether the layers have products of two fields and no broken symmetry."""
    own = cast("list[FacetLayer]", layers)
    return all(
        layer.broken is None and all(mixing.pair for mixing in mixings_of(layer)) for layer in own
    )


def pack(potential: MessagePassing, memory: Memory, struct: PotentialWeights) -> None:
    """Set the part of the struct of a potential that describes its layers."""
    first = cast("FacetLayer", potential.layers[0])
    channels = memory.padded(potential.embedding.shape[2])
    grid_channels = memory.padded(mixings_of(first)[0].bias.shape[1])
    layers = [
        _layer(cast("FacetLayer", layer), memory, channels, grid_channels)
        for layer in potential.layers
    ]
    for number, layer in enumerate(layers):
        layer.readout = packed_readout(potential, number, memory)
    weights = FacetWeights(
        memory.keep((FacetLayerWeights * len(layers))(*layers)),
        memory.address(potential.embedding[:, 0], channels),
        first.convolution.l_max_out,
        channels,
        grid_channels,
    )
    struct.facet = ctypes.pointer(memory.keep(weights))
    struct.intervals = first.convolution.coefficients.shape[0]


def _layer(
    module: FacetLayer, memory: Memory, channels: int, grid_channels: int
) -> FacetLayerWeights:
    own = [_mixing(mixing, memory, grid_channels) for mixing in mixings_of(module)]
    struct = FacetLayerWeights(
        memory.address(module.convolution.coefficients, channels),
        *_matrix(module.message, memory),
        *_matrix(module.skip, memory),
    )
    struct.mixing = memory.keep((FacetMixingWeights * len(own))(*own))
    struct.mixings, struct.l_in = len(own), len(module.skip.sizes) - 1
    return struct


def _mixing(module: SphereMixing, memory: Memory, grid_channels: int) -> FacetMixingWeights:
    assert module.pair and isinstance(module.second, DegreeLinear)
    (enter, enter_t), (second, second_t) = (
        _matrix(linear, memory) for linear in (module.enter, module.second)
    )
    return FacetMixingWeights(
        *(enter, second, enter_t, second_t),
        *_matrix(module.leave, memory),
        memory.address(module.bias, grid_channels),
        len(module.enter.sizes) - 1,
        module.l_max_out,
    )


def _matrix(linear: DegreeLinear, memory: Memory) -> tuple[int | None, int | None]:
    """A linear map by degree and its transpose."""
    weight = linear.scale * linear.weight
    rows, columns = (memory.padded(size) for size in weight.shape[1:])
    return memory.address(weight, rows, columns), memory.address(
        weight.transpose(1, 2), columns, rows
    )
