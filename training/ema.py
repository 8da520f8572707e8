"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Moving average of the weights of one module, kept in another module.

    The decay starts small, ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the random
    initial weights are soon forgotten. The caller owns both modules and saves and restores them.
    """

    def __init__(self, source: nn.Module, average: nn.Module, decay: float) -> None:
        """Pair the weights.

        Args:
            source: the module that is trained.
            average: a copy of it; its buffers are not updated, since none of them is trained.
            decay: 0 copies the weights.
        """
        self.source: list[Tensor] = list(source.parameters())
        self.average: list[Tensor] = list(average.parameters())
        self.decay = decay

    def share(self, n: int) -> float:
        """Share of the source in update number n (from 0)."""
        return 1.0 - min(self.decay, (1.0 + n) / (10.0 + n))

    @torch.no_grad()
    def update(self, share: Tensor) -> None:
        """Move the average by a share of the difference, a number on the device."""
        share = share.to(self.average[0].dtype)
        # By the difference, so that weights that do not move, such as frozen ones, stay exactly.
        difference = torch._foreach_sub(self.source, self.average)
        torch._foreach_mul_(difference, share)
        torch._foreach_add_(self.average, difference)
