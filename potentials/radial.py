"""Radial functions that vanish smoothly at the cutoff: uniform cubic B-splines, an envelope."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


def smooth_splines(intervals: int, functions: int, waves: int = 4) -> Tensor:
    """Random radial functions (K, functions) without wiggles: sums of a few long sine waves.

    Independent random coefficients would make functions as rough as the knots allow. On mlearn Si
    the gain is within noise (docs/experiments.md).
    """
    centres = (torch.arange(intervals) + 1.0) / (intervals + 1.0)
    modes = torch.sin(torch.pi * centres.outer(torch.arange(1.0, waves + 1.0)))
    splines: Tensor = modes @ torch.randn(waves, functions) * (2.0 / waves) ** 0.5
    return splines


class SplineRadial(nn.Module):
    """Learned radial functions, C² at the cutoff."""

    def __init__(self, functions: int, intervals: int, cutoff: float) -> None:
        """Make coefficients (K, functions) of smooth random functions of unit size.

        Args:
            functions: how many.
            intervals: K, number of spline intervals.
            cutoff: Å.
        """
        super().__init__()
        self.cutoff = cutoff
        self.coefficients = nn.Parameter(smooth_splines(intervals, functions))

    def forward(self, radii: Tensor) -> Tensor:
        """Lengths (E,) Å float64 to values (E, functions) in the dtype of the weights."""
        basis = spline_basis(radii, self.cutoff, self.coefficients.shape[0])
        return basis.to(self.coefficients.dtype) @ self.coefficients


def envelope(radii: Tensor, cutoff: float) -> Tensor:
    """``(1 - (r / r_cut)²)³``: 1 at zero, C² at the cutoff and zero beyond; the shape of radii."""
    return (1.0 - (radii / cutoff).square()).clamp(min=0.0).pow(3)
