"""Change of the weights by a gradient: clipping, optimiser, moving average.

All operations of `Update._change` are on the device and do not depend on numbers that the host
would have to wait for, so that a GPU can record them.
"""

from __future__ import annotations

from operator import is_not

import torch
from torch import Tensor, nn

from tesseral.training.ema import WeightAverage
from tesseral.training.soap import Adam, Soap


class Update:
    """Steps of an optimiser with a limit for the norm of the gradient.

    If a gradient is not finite, neither its step nor any later one changes the weights.

    Attributes:
        trained: the weights that have gradients.
        gradient: the gradients by them, one after the other.
        numbers: (k, 2) float64, the numbers of a step, see `count`.
        alive: whether all gradients were finite.
    """

    def __init__(
        self, potential: nn.Module, optimizer: Soap | Adam, average: WeightAverage, largest: float
    ) -> None:
        """Prepare.

        Args:
            potential: module with the weights.
            optimizer: optimiser of all or some of them.
            average: their moving average.
            largest: largest norm of a gradient; may be infinite.
        """
        self.optimizer, self.average, self.largest = optimizer, average, largest
        self._weights = list(potential.parameters())
        self.trained: list[Tensor] = []
        self._parts: list[Tensor] = []
        self.gradient = self._weights[0].new_empty(0)
        self.alive = torch.ones((), dtype=torch.bool, device=self._weights[0].device)

    def gather(self) -> bool:
        """Copy the gradients of the weights to ``gradient``; whether that is a new array."""
        trained: list[Tensor] = [one for one in self._weights if one.grad is not None]
        new = len(trained) != len(self.trained) or any(map(is_not, trained, self.trained))
        if new:
            self.trained = trained
            sizes = [weight.numel() for weight in trained]
            self.gradient = self._weights[0].new_empty(sum(sizes))
            parts = torch.split(self.gradient, sizes)
            self._parts = [part.view_as(one) for part, one in zip(parts, trained, strict=True)]
        if trained:
            every = [weight.grad.flatten() for weight in trained if weight.grad is not None]
            self.gradient.copy_(torch.cat(every))  # some may be parts of it already
        self.share()
        return new

    def share(self) -> None:
        """Let the weights' gradients be the parts of ``gradient``."""
        for weight, part in zip(self.trained, self._parts, strict=True):
            weight.grad = part

    def count(self, number: int) -> list[tuple[float, float]]:
        """Numbers of step ``number`` (from 0), and those with which it changes nothing."""
        return [(self.average.share(number), 0.0), *self.optimizer.advance()]

    def change(self, numbers: Tensor) -> None:
        """Clip the gradient, take the step and move the average.

        Args:
            numbers: (k, 2) float64 from ``count``, on the device.
        """
        self.average.update(self.step(numbers))

    @torch.no_grad()
    def step(self, numbers: Tensor) -> Tensor:
        """Clip the gradient and take the step; the share by which the average is to move.

        Args:
            numbers: (k, 2) float64 from ``count``, on the device.
        """
        norm = torch.linalg.vector_norm(self.gradient)
        self.alive.logical_and_(norm.isfinite())
        self.gradient.mul_((self.largest / (norm + 1e-6)).clamp(max=1.0))
        self.gradient.masked_fill_(~self.alive, 0.0)
        chosen: Tensor = torch.where(self.alive, numbers[:, 0], numbers[:, 1])
        self.optimizer.update(chosen[1:])
        return chosen[0]
