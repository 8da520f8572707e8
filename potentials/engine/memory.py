"""Memory referenced by the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.readout import LinearReadout, Readout
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import ReadoutWeights
from tesseral.potentials.ops.padding import padded_channels


class Memory:
    """Owner of the arrays referenced by C structs; must outlive them."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Start empty; ``dtype`` is that of the features."""
        self.dtype = dtype
        self.parts: list[Any] = []

    def keep(self, part: Any) -> Any:
        """Keep a tensor, a struct or an array of structs, and return it."""
        self.parts.append(part)
        return part

    def address(self, tensor: Tensor | None, *sizes: int) -> int | None:
        """Address of a contiguous copy, its last dimensions padded with zeros to these sizes."""
        if tensor is None:
            return None
        room = []
        for have, want in zip(reversed(tensor.shape), reversed(sizes)):
            room += [0, want - have]
        copy = nn.functional.pad(tensor.detach(), room)
        address: int = self.keep(copy.clone(memory_format=torch.contiguous_format)).data_ptr()
        return address

    def padded(self, channels: int) -> int:
        """The number of channels rounded up to whole vectors."""
        return padded_channels(channels, self.dtype)

    def integers(self, values: Sequence[int]) -> int | None:
        """Address of an int32 array."""
        return self.address(torch.tensor(values, dtype=torch.int32))

    def readout(self, module: nn.Module | None, factor: Tensor | None = None) -> Any:
        """Pointer to the struct of a readout, or null.

        Args:
            module: the readout.
            factor: its rows (D, K) of the factor of `Uncertainty`, if there is one.
        """
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
        if factor is not None:
            rank = self.padded(factor.shape[1])
            rows = torch.split(factor.to(self.dtype), module.linear.in_features)
            struct.by_scalars = self.address(rows[0], channels, rank)
            if isinstance(module, Readout):
                struct.by_hidden = self.address(rows[1], channels, rank)
        return ctypes.pointer(self.keep(struct))


def packed_readout(potential: MessagePassing, number: int, memory: Memory) -> Any:
    """Pointer to the struct of the readout after a layer, or null if there is none."""
    index = number - potential.first_readout
    if index < 0:
        return None
    readout, factor = cast("Readout", potential.readouts[index]), None
    if potential.uncertainty is not None:
        size = readout.n_features
        factor = potential.uncertainty.factor[index * size : (index + 1) * size]
    return memory.readout(readout, factor)
