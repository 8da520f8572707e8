"""Limits for two computations of the same numbers: number of terms × unit roundoff × magnitude.

Processors round the same formula differently: the width of a vector register decides the order in
which a sum is taken, and fused multiply-adds round once where others round twice. A limit that one
processor just meets is not met by the next, so the limits of the tests come from the arithmetic.

A sum of n terms of size t and of either sign is about √n t, and its partial sum of k terms about
√k t. Each addition rounds it by at most the unit roundoff u times its size, and by 0.42 u times its
size in the root mean square (uniform within half a unit of the last place, mantissas distributed as
1/m). These errors are independent, so the squares add up, Σ_k 0.18 u² k t² = 0.09 u² n² t²: the sum
is off by 0.3 √n u times its own size, and two sums in different orders differ by σ = 0.42 √n u. The
limit is 2 √n u, about 5 σ. (The bound for the worst case, n u Σ|t|, is larger by √n or more and
would let real errors pass; where terms have one sign it is smaller by a factor of √n than σ says,
relative to the sum.) Sums of sums count the terms of each stage, n = n₁ + n₂ + …, because the
errors of the stages add up in squares too. The factors of a term (weights, polynomials) count as
``FACTORS`` further terms: each product rounds once, relative to the size of the term.

The size is that of a typical value of the tensor, such as its largest. A tensor of few numbers,
each a sum with cancellation, may be small by chance: take the largest of several random draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FACTORS = 24  # products behind one term: three factors, a cubic polynomial and its derivatives


def limit(dtype: torch.dtype, terms: float) -> float:
    """Largest difference of two sums of ``terms`` terms each, relative to their typical size.

    Args:
        dtype: in which the sums are computed.
        terms: n, of the longest sum, or of all sums of a chain together.
    """
    roundoff = torch.finfo(dtype).eps / 2
    return 2 * (terms + FACTORS) ** 0.5 * roundoff


def deviations(values: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    """Largest difference of each pair of tensors, relative to the largest value expected."""
    return [
        float((a - b).abs().max() / (1e-30 + b.abs().max())) if a.numel() else 0.0
        for a, b in zip(values, expected, strict=True)
    ]
