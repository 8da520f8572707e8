"""State of weights, by which copies of them in another layout are kept up to date."""

from __future__ import annotations

from torch import Tensor


def state_of(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Versions of the tensors, which change when one is replaced or written to."""
    return [(tensor.data_ptr(), tensor._version) for tensor in tensors]
