"""The weights of a potential as the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from tesseral.potentials.facet import FacetLayer
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.nequip import NequIPLayer
from tesseral.potentials.ops.layout import padded_channels
from tesseral.potentials.ops.library import PotentialWeights, ReadoutWeights
from tesseral.potentials.readout import LinearReadout, Readout


class Memory:
    """What C structs point to; must outlive them."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Hold nothing yet; ``dtype`` is that of the features."""
        self.dtype = dtype
        self.parts: list[Any] = []

    def keep(self, part: Any) -> Any:
        """Hold a tensor, a struct or an array of them, and return it."""
        self.parts.append(part)
        return part

    def address(self, tensor: Tensor | None, *sizes: int) -> int | None:
        """Of a contiguous copy, its last dimensions padded with zeros to these sizes."""
        if tensor is None:
            return None
        room = []
        for have, want in zip(reversed(tensor.shape), reversed(sizes)):
            room += [0, want - have]
        copy = nn.functional.pad(tensor.detach(), room)
        address: int = self.keep(copy.clone(memory_format=torch.contiguous_format)).data_ptr()
        return address

    def padded(self, channels: int) -> int:
        """The next number of channels that fills vectors."""
        return padded_channels(channels, self.dtype)

    def integers(self, values: Sequence[int]) -> int | None:
        """Address of int32 numbers."""
        return self.address(torch.tensor(values, dtype=torch.int32))

    def readout(self, module: nn.Module | None) -> Any:
        """Pointer to the struct of a readout; null without one."""
        if module is None:
            return None
        assert isinstance(module, (LinearReadout, Readout))
        channels = self.padded(module.linear.weight.shape[1])
        struct = ReadoutWeights(self.address(module.linear.weight[0], channels))
        struct.constant = float(module.linear.bias)
        if isinstance(module, Readout):
            hidden = module.hidden.weight
            struct.output = self.address(module.output.weight[0], channels)
            struct.shift = self.address(module.hidden.bias, channels)
            struct.hidden = self.address(hidden.T, channels, channels)
            struct.hidden_t = self.address(hidden, channels, channels)
        return ctypes.pointer(self.keep(struct))


class Packed(NamedTuple):
    """The struct of a potential, and what it points to."""

    struct: PotentialWeights
    parts: list[Any]


def can_pack(potential: MessagePassing) -> bool:
    """Whether the compiled function, if there is one, can take the weights."""
    from tesseral.potentials.ops import pack_facet, pack_nequip

    if potential.levels > 1 or not potential.embedding.is_cpu:
        return False
    layers = list(potential.layers)
    if isinstance(layers[0], FacetLayer):
        return pack_facet.can_pack(layers)
    return isinstance(layers[0], NequIPLayer) and pack_nequip.can_pack(layers)


@torch.no_grad()
def packed_weights(potential: MessagePassing) -> Packed:
    """The C struct of the weights of a potential that ``can_pack``."""
    from tesseral.potentials.ops import pack_facet, pack_nequip

    memory = Memory(potential.embedding.dtype)
    struct, first = PotentialWeights(), potential.layers[0]
    if isinstance(first, FacetLayer):
        struct.facet = ctypes.pointer(memory.keep(pack_facet.facet_weights(potential, memory)))
        struct.intervals = first.convolution.coefficients.shape[0]
    else:
        struct.nequip = ctypes.pointer(memory.keep(pack_nequip.nequip_weights(potential, memory)))
        struct.intervals = cast("NequIPLayer", first).convolution.pieces.shape[0]
    struct.reference_energies = memory.address(potential.scale.reference_energies)
    struct.energy_scale = memory.address(potential.scale.scale)
    if potential.binding is not None:
        struct.binding_energies = memory.address(potential.binding.energies)
    if potential.zbl is not None:
        struct.zbl_charge = memory.address(potential.zbl.charge)
        struct.zbl_reach = memory.address(potential.zbl.outer)
        struct.zbl_screening = memory.address(potential.zbl.inverse_length)
    struct.layers = len(potential.layers)
    struct.l_edge = potential.harmonics.l_max
    struct.species = potential.n_species
    struct.cutoff = potential.cutoff
    return Packed(memory.keep(struct), memory.parts)


def readout_of(potential: MessagePassing, number: int) -> nn.Module | None:
    """The readout behind a layer, if there is one."""
    index = number - potential.first_readout
    return potential.readouts[index] if index >= 0 else None
