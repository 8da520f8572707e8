"""Weights of a potential as the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.architectures.nequip import NequIPLayer
from tesseral.potentials.blocks.uncertainty import Uncertainty
from tesseral.potentials.engine import facet, nequip
from tesseral.potentials.engine.memory import Memory
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import PotentialWeights, UncertaintyWeights


class Packer(NamedTuple):
    """Conversion of the layers of one architecture to C structs."""

    can_pack: Callable[[Sequence[nn.Module]], bool]  # whether the compiled code can run them
    pack: Callable[[MessagePassing, Memory, PotentialWeights], None]  # sets their part


# By the class of the layers. A further architecture needs a file here, a header in csrc/ with a
# line in csrc/evaluate.h, and a struct in ops/csrc/kernels.h.
PACKERS: dict[type[nn.Module], Packer] = {
    FacetLayer: Packer(facet.can_pack, facet.pack),
    NequIPLayer: Packer(nequip.can_pack, nequip.pack),
}


class Packed(NamedTuple):
    """The struct of a potential, and the memory it references."""

    struct: PotentialWeights
    parts: list[Any]


def can_pack(potential: MessagePassing) -> bool:
    """Whether the compiled function supports the weights; it need not be available."""
    if potential.levels > 1 or not potential.embedding.is_cpu:
        return False
    packer = PACKERS.get(type(potential.layers[0]))
    return packer is not None and packer.can_pack(list(potential.layers))


@torch.no_grad()
def packed_weights(potential: MessagePassing) -> Packed:
    """The C struct of the weights of a potential that ``can_pack``."""
    memory = Memory(potential.embedding.dtype)
    struct = PotentialWeights()
    PACKERS[type(potential.layers[0])].pack(potential, memory, struct)
    struct.reference_energies = memory.address(potential.scale.reference_energies)
    struct.energy_scale = memory.address(potential.scale.scale)
    if potential.binding is not None:
        struct.binding_energies = memory.address(potential.binding.energies)
    nuclei = potential.zbl or potential.short_range
    if nuclei is not None:
        struct.zbl_charge = memory.address(nuclei.charge)
        struct.zbl_screening = memory.address(nuclei.inverse_length)
    if potential.zbl is not None:
        struct.zbl_reach = memory.address(potential.zbl.outer)
    if potential.short_range is not None:
        struct.inner_radii = memory.address(potential.short_range.inner)
    if potential.uncertainty is not None:
        struct.uncertainty = _uncertainty(potential.uncertainty, memory)
    struct.layers = len(potential.layers)
    struct.l_edge = potential.harmonics.l_max
    struct.species = potential.n_species
    struct.cutoff = potential.cutoff
    return Packed(memory.keep(struct), memory.parts)


def _uncertainty(module: Uncertainty, memory: Memory) -> Any:
    """Pointer to the struct of the uncertainty."""
    center, numbers = module.center.to(memory.dtype), module.calibration
    rank = memory.padded(center.shape[1])
    struct = UncertaintyWeights(
        memory.address(center, rank),
        numbers.forces,
        numbers.exponent,
        numbers.reach,
        rank,
        numbers.landmarks,
    )
    return ctypes.pointer(memory.keep(struct))
