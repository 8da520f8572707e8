"""Radial functions: uniform cubic B-splines that vanish smoothly at the cutoff."""

from __future__ import annotations

import torch
from torch import Tensor


def spline_basis(radii: Tensor, cutoff: float, intervals: int) -> Tensor:
    """Values of K = ``intervals`` uniform cubic B-splines on [0, cutoff].

    The full basis has K + 3 functions, four of them nonzero at any distance. The last three are
    dropped, so that the value and the first and second derivative of any combination of the
    others vanish at the cutoff; no other envelope is needed.

    Args:
        radii: (E,) Å.
        cutoff: Å.
        intervals: number of knot intervals K.

    Returns:
        (E, K), dtype of ``radii``; zero beyond the cutoff.
    """
    t = radii * (float(intervals) / cutoff)
    left = t.detach().floor().clamp(0, intervals - 1)
    f = t - left  # position within the interval, 0 … 1
    g = 1.0 - f
    four = torch.stack(
        [
            g * g * g,
            (3.0 * f - 6.0) * f * f + 4.0,
            (3.0 * g - 6.0) * g * g + 4.0,
            f * f * f,
        ],
        dim=-1,
    ) * ((radii < cutoff).to(radii.dtype) / 6.0).unsqueeze(-1)
    columns = left.to(torch.int64).unsqueeze(-1) + torch.arange(4, device=radii.device)
    full = torch.zeros(radii.shape[0], intervals + 3, dtype=radii.dtype, device=radii.device)
    return full.scatter(1, columns, four)[:, :intervals]
