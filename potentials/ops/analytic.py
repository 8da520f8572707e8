"""Inference by one compiled function: energies, forces and virials, without an autograd graph.

The same potential as ``facet.py`` with products of two fields, its gradient written out in
``csrc/facet.h``. It does not differentiate by the weights; training uses the operators.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tesseral.potentials.facet import FacetLayer
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.ops.layout import padded_channels
from tesseral.potentials.ops.library import (
    FacetWeights,
    Graph,
    LayerWeights,
    MixingWeights,
    kernels,
)
from tesseral.potentials.readout import Readout


class AtomicResults(NamedTuple):
    """What the compiled function gives."""

    energies: Tensor  # (N,)       eV
    forces: Tensor  # (N, 3)     eV/Å
    virials: Tensor  # (N, 3, 3)  eV, of the edges that an atom receives


def mixings_of(layer: nn.Module) -> list[SphereMixing]:
    """A layer's mixings, as what they are."""
    return cast("list[SphereMixing]", list(cast("FacetLayer", layer).mixings))


def applies(potential: object) -> bool:
    """Whether a potential can be evaluated this way: Facet, products of two, compiled kernels."""
    return (
        isinstance(potential, MessagePassing) and potential.harmonics.fused and can_pack(potential)
    )


def can_pack(potential: MessagePassing) -> bool:
    """Whether the compiled function, if there is one, can take the weights."""
    if potential.levels > 1:
        return False
    layers = potential.layers
    if not all(isinstance(layer, FacetLayer) and layer.broken is None for layer in layers):
        return False
    mixings = [mixing for layer in potential.layers for mixing in mixings_of(layer)]
    return potential.embedding.is_cpu and all(mixing.pair for mixing in mixings)


def evaluate(
    potential: MessagePassing, species: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor
) -> AtomicResults:
    """Energies, forces and virials.

    Args:
        potential: one that ``applies``.
        species: (N,) index into ``elements``.
        vectors: (E, 3) Å float64, sender to receiver.
        senders: (E,).
        receivers: (E,) sorted.
    """
    weights = _packed(potential)
    atoms, edges = species.shape[0], senders.shape[0]
    results = AtomicResults(
        vectors.new_empty(atoms), vectors.new_empty(atoms, 3), vectors.new_empty(atoms, 3, 3)
    )
    inputs = [tensor.contiguous() for tensor in (species, vectors, senders, receivers)]
    graph = Graph(
        *(tensor.data_ptr() for tensor in inputs),
        atoms,
        edges,
        torch.get_num_threads() if edges > 500 else 1,
        *(tensor.data_ptr() for tensor in results),
        atoms,
        None,
    )
    functions = kernels(potential.embedding.dtype)
    size = functions.facet_workspace(weights.struct, atoms, edges)
    functions.facet(weights.struct, graph, _workspace(size).data_ptr())
    return results


_scratch = threading.local()


def _workspace(size: int) -> Tensor:
    """Memory that is kept from call to call, since new memory costs a page fault for each 4 kB."""
    memory: Tensor | None = getattr(_scratch, "memory", None)
    if memory is None or not size <= memory.numel() <= 4 * size + 2**26:
        memory = _scratch.memory = None  # free the old one first
        memory = torch.empty(size + size // 8, dtype=torch.uint8)
        _scratch.memory = memory
    return memory


class _Packed(NamedTuple):
    """A C struct of the weights, what it points to, and the state of the weights it was made of."""

    struct: FacetWeights
    keep: list[Any]
    tensors: list[Tensor]
    state: list[tuple[int, int]]


_cache: WeakKeyDictionary[MessagePassing, _Packed] = WeakKeyDictionary()


def _packed(potential: MessagePassing) -> _Packed:
    """The weights as the compiled function takes them; made again when they have changed."""
    packed = _cache.get(potential)
    if packed is None or packed.state != _state(packed.tensors):
        struct, keep = packed_weights(potential)
        tensors = [*potential.parameters(), *potential.buffers()]
        packed = _cache[potential] = _Packed(struct, keep, tensors, _state(tensors))
    return packed


def _state(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """What changes when one of them is replaced or written to."""
    return [(tensor.data_ptr(), tensor._version) for tensor in tensors]


@torch.no_grad()
def packed_weights(potential: MessagePassing) -> tuple[FacetWeights, list[Any]]:
    """The C struct of the weights, and what it points to, which must outlive it."""
    keep: list[Any] = []
    dtype = potential.embedding.dtype

    def pointer(tensor: Tensor, *padding: int) -> int:
        """Address of a contiguous copy, its last dimensions padded with zeros to these sizes."""
        room = []
        for have, want in zip(reversed(tensor.shape), reversed(padding)):
            room += [0, want - have]
        copy = torch.nn.functional.pad(tensor, room).clone(memory_format=torch.contiguous_format)
        keep.append(copy)
        return copy.data_ptr()

    def matrix(linear: DegreeLinear) -> tuple[int, int]:
        """A map by degree and its transpose."""
        weight = linear.scale * linear.weight
        sizes = [padded_channels(size, dtype) for size in weight.shape[1:]]
        return pointer(weight, *sizes), pointer(weight.transpose(1, 2), sizes[1], sizes[0])

    def mixing(module: SphereMixing) -> MixingWeights:
        assert module.pair and isinstance(module.second, DegreeLinear)
        (enter, enter_t), (second, second_t) = matrix(module.enter), matrix(module.second)
        leave, leave_t = matrix(module.leave)
        bias = pointer(module.bias, grid_channels)
        l_in = len(module.enter.sizes) - 1
        return MixingWeights(
            enter, second, enter_t, second_t, leave, leave_t, bias, l_in, module.l_max_out
        )

    def layer(module: FacetLayer, readout: Readout) -> LayerWeights:
        (message, message_t), (skip, skip_t) = matrix(module.message), matrix(module.skip)
        own = mixings_of(module)
        mixings = (MixingWeights * len(own))(*(mixing(each) for each in own))
        keep.append(mixings)
        hidden = readout.hidden.weight
        return LayerWeights(
            pointer(module.convolution.coefficients, channels),
            *(message, message_t, skip, skip_t),
            pointer(readout.linear.weight[0], channels),
            pointer(readout.output.weight[0], channels),
            pointer(readout.hidden.bias, channels),
            pointer(hidden.T, channels, channels),
            pointer(hidden, channels, channels),
            float(readout.linear.bias),
            mixings,
            len(mixings),
            len(module.skip.sizes) - 1,
        )

    own_layers = cast("list[FacetLayer]", list(potential.layers))
    readouts = cast("list[Readout]", list(potential.readouts))
    first = own_layers[0]
    channels = padded_channels(potential.embedding.shape[2], dtype)
    grid_channels = padded_channels(mixings_of(first)[0].bias.shape[1], dtype)
    repulsion = potential.zbl
    zbl: Sequence[Tensor | None] = (None, None, None)
    if repulsion is not None:
        zbl = repulsion.charge, repulsion.outer, repulsion.inverse_length
    layers = (LayerWeights * len(potential.layers))(
        *(layer(module, readout) for module, readout in zip(own_layers, readouts))
    )
    keep.append(layers)
    struct = FacetWeights(
        layers,
        pointer(potential.embedding[:, 0], channels),
        pointer(potential.scale.reference_energies),
        pointer(potential.scale.scale),
        None if potential.binding is None else pointer(potential.binding.energies),
        *(None if table is None else pointer(table) for table in zbl),
        len(layers),
        first.convolution.l_max_out,
        potential.harmonics.l_max,
        channels,
        grid_channels,
        first.convolution.coefficients.shape[0],
        len(potential.embedding),
        potential.cutoff,
    )
    return struct, keep
