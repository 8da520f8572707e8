"""The weights of a potential as the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, cast

import torch

from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.architectures.nequip import NequIPLayer
from tesseral.potentials.engine import pack_facet, pack_nequip
from tesseral.potentials.engine.memory import Memory
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import PotentialWeights


class Packed(NamedTuple):
    """The struct of a potential, and what it points to."""

    struct: PotentialWeights
    parts: list[Any]


def can_pack(potential: MessagePassing) -> bool:
    """Whether the compiled function, if there is one, can take the weights."""
    if potential.levels > 1 or not potential.embedding.is_cpu:
        return False
    layers = list(potential.layers)
    if isinstance(layers[0], FacetLayer):
        return pack_facet.can_pack(layers)
    return isinstance(layers[0], NequIPLayer) and pack_nequip.can_pack(layers)


@torch.no_grad()
def packed_weights(potential: MessagePassing) -> Packed:
    """The C struct of the weights of a potential that ``can_pack``."""
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
