"""Distances and directions of edges: pure functions that are safe at zero length."""

from __future__ import annotations

import torch
from torch import Tensor


def lengths_and_directions(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths (E,) Å and unit vectors (E, 3) of ``vectors`` (E, 3) Å.

    A zero vector has length 0, direction 0 and finite derivatives, so padding or two atoms at the
    same position never give a NaN gradient.
    """
    squared = (vectors * vectors).sum(-1)
    zero = squared == 0
    lengths = torch.where(zero, torch.ones_like(squared), squared).sqrt()
    directions = vectors / lengths.unsqueeze(-1)
    return torch.where(zero, torch.zeros_like(lengths), lengths), directions


def random_orthogonal() -> Tensor:
    """A uniformly random rotation or mirror image, (3, 3) float64, from torch's generator."""
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    # Without the signs the distribution would depend on those of the algorithm.
    matrix: Tensor = q * torch.diagonal(r).sign()
    return matrix
