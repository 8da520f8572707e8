"""The layers of Facet as the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.blocks.sphere import coupling
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
        memory.address(aligned_coefficients(module.convolution), channels),
        *_matrix(module.message, memory),
        *_matrix(module.skip, memory),
    )
    struct.mixing = memory.keep((FacetMixingWeights * len(own))(*own))
    struct.mixings, struct.l_in = len(own), len(module.skip.sizes) - 1
    return struct


def aligned_coefficients(convolution: SplineConvolution) -> Tensor:
    """Coefficients of the radial functions in the frames of edges (``csrc/aligned.h``).

    Along the polar axis only m2 = 0 of the harmonics is not zero, ``sqrt(2 l2 + 1)``, and the sum
    over l2 couples m of l1 to m of l3 by one number, which is the same for -m.

    Returns:
        (K + 4, W, C), W rows for each l3, l1 and ``|m|``; the last four splines are zero.
    """
    paths, l_out = convolution.paths, convolution.l_max_out
    ways = Counter(l3 for _, _, l3 in paths)
    rows = [
        (l1, l3, m)
        for l3 in range(l_out + 1)
        for l1 in range(max(l1 for l1, _, _ in paths) + 1)
        for m in range(min(l1, l3) + 1)
    ]
    mix = torch.zeros(len(rows), len(paths), dtype=torch.float64)
    for row, (l1, l3, m) in enumerate(rows):
        for column, path in enumerate(paths):
            if (path[0], path[2]) == (l1, l3):
                tensor = coupling(*path)[l1 + m, path[1], l3 + m]
                mix[row, column] = tensor * ((2 * path[1] + 1) / ways[l3]) ** 0.5
    coefficients = convolution.coefficients.detach()
    aligned = torch.einsum("wp,kpc->kwc", mix, coefficients.double()).to(coefficients)
    return nn.functional.pad(aligned, (0, 0, 0, 0, 0, 4))


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
