"""Optimiser of the symmetry-breaking weights of a relaxed potential, with a group lasso."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.sphere import degree_sizes


class Relaxation(nn.Module):
    """Adam with a soft threshold for the broken components of all mixings, degree by degree.

    The components of one degree in one mixing form a group with one second moment, so that steps
    rotate with the data. After each step the group is shrunk towards zero by a constant amount,

        b ← b - η m / v^(1/2),      b ← b · max(0, 1 - η λ / rms(b)),

    the proximal step of a group lasso (Yuan and Lin 2006) in the metric of Adam. A group that is
    zero stays exactly zero while rms(m) < λ v^(1/2), that is, unless the gradients of different
    batches agree on a direction. Proportional shrinkage, b ← b / (1 + η λ), is the proximal step of
    a quadratic penalty (Kim, Lee, Yang and Lee, ICML 2023); it leaves noise.

    The moments are buffers, so that they are saved with the training.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        decay: float,
        threshold: bool = True,
        beta: float = 0.98,
    ) -> None:
        """Start with moments of zero.

        Args:
            weights: weights of each layer, (mixings, S, M - 1, C).
            decay: λ.
            threshold: shrink by a constant amount; otherwise proportionally.
            beta: decay of the mean gradient and of its mean square.
        """
        super().__init__()
        self.weights = list(weights)  # weights of the potential, not of this module
        self.decay, self.threshold, self.beta = decay, threshold, beta
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.steps: Tensor
        for number, weight in enumerate(self.weights):
            self.register_buffer(f"mean{number}", torch.zeros_like(weight))
            self.register_buffer(f"square{number}", torch.zeros_like(weight))

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the weights from their gradients.

        Args:
            learning_rate: η.
        """
        self.steps += 1
        new = 1.0 - self.beta
        for number, weight in enumerate(self.weights):
            assert weight.grad is not None
            mean, square = self.get_buffer(f"mean{number}"), self.get_buffer(f"square{number}")
            mean.lerp_(weight.grad, new)
            square.lerp_(degree_means(weight.grad.square()), new)
            root = (square / (1.0 - self.beta**self.steps)).sqrt().clamp(min=1e-30)
            weight.sub_(learning_rate * mean / root)
            if self.threshold:
                size = degree_means(weight.square()).sqrt().clamp(min=1e-30)
                weight.mul_((1.0 - learning_rate * self.decay / size).clamp(min=0.0))
            else:
                weight.div_(1.0 + learning_rate * self.decay)
            weight.grad = None  # the optimiser of the other weights would not clear it


def degree_means(values: Tensor) -> Tensor:
    """Means over species, components and channels for each degree from 1, broadcast back.

    Args:
        values: (mixings, S, M - 1, C).

    Returns:
        Tensor of the same shape.
    """
    sizes = degree_sizes(round((values.shape[2] + 1) ** 0.5) - 1)[1:]
    parts = torch.split(values, sizes, dim=2)
    means = [part.mean(dim=(1, 2, 3), keepdim=True).expand_as(part) for part in parts]
    return torch.cat(means, dim=2)
