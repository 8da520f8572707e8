"""How tensors are handed to the compiled kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def threads_for(work: int) -> int:
    """Threads for so many multiplications: those of PyTorch, one where starting more costs more."""
    return torch.get_num_threads() if work > 200_000 else 1


def padded(tensor: Tensor, channels: int) -> Tensor:
    """Contiguous, with zeros up to that many channels."""
    missing = channels - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor.contiguous()


def padded_channels(channels: int, dtype: torch.dtype) -> int:
    """The next multiple of the widest vector's length."""
    lanes = 64 // dtype.itemsize
    return (channels + lanes - 1) // lanes * lanes


def degree_of(components: int) -> int:
    """The degree l_max of (l_max + 1)² components."""
    return math.isqrt(components) - 1
