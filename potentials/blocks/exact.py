"""Constants that stay in float64 whatever dtype the weights of a module have."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose buffers follow ``.to(device)`` but never lose their dtype.

    Tables and reference energies would be rounded for good by ``.float()`` (and by ``.float()``
    followed by ``.double()``, unnoticed); modules cast them where they use them instead.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExactBuffers:
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self
