"""Memory referenced by the C structs of ``csrc/kernels.h``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

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

    def readout(self, module: nn.Module | None) -> Any:
        """Pointer to the struct of a readout, or null."""
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


def readout_of(potential: MessagePassing, number: int) -> nn.Module | None:
    """The readout after a layer, if there is one."""
    index = number - potential.first_readout
    return potential.readouts[index] if index >= 0 else None
