"""Constants that stay in float64 for any dtype of the weights of a module."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose buffers follow ``.to(device)`` but keep their dtype.

    ``.float()`` would round tables and reference energies permanently, and ``.float()`` followed by
    ``.double()`` would do so unnoticed. Instead, modules cast them where they are used.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExactBuffers:
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self
