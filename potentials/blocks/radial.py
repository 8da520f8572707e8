"""Radial functions that vanish smoothly at the cutoff: cubic B-splines and an envelope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def spline_basis(radii: Tensor, cutoff: float, intervals: int) -> Tensor:
    """Values of K = ``intervals`` uniform cubic B-splines on [0, cutoff].

    The full basis has K + 3 functions, four of them nonzero at any distance. Without the last
    three, the value and the first and second derivative of any combination vanish at the cutoff;
    no other envelope is needed.

    Args:
        radii: (E,) Å.
        cutoff: cutoff (Å).
        intervals: K, the number of knot intervals.

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


def spline_pieces(intervals: int, cutoff: float, kinks: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The functions of ``spline_basis`` as polynomials, with additional ones for kinks.

    A kink is a double knot: the second derivative may jump there; at the cutoff, it need not
    vanish. Each kink adds a function.

    Args:
        intervals: K, the number of knot intervals.
        cutoff: cutoff (Å).
        kinks: distances (Å), each on a border of two intervals or at the cutoff.

    Returns:
        Coefficients (K, 4, 4) float64, indexed by the interval, by the four functions that are
        nonzero there, and by the power of the position in the interval, 0 … 1; and the index (K,)
        of the first of the four functions. Functions beyond the last one, K + len(kinks) - 1, are
        zero.

    Raises:
        ValueError: a kink is not on a border.
    """
    places = [kink * intervals / cutoff for kink in kinks]
    if any(abs(place - round(place)) > 1e-6 or not 0 < place < intervals + 0.5 for place in places):
        raise ValueError(
            f"the radial functions may have kinks at {', '.join(f'{kink:g}' for kink in kinks)} Å, "
            f"but {intervals} intervals up to {cutoff:g} Å have no border there; use another number"
        )
    knots = np.sort([*range(-3, intervals + 1), *(round(place) for place in places)])
    first = np.arange(intervals) + np.searchsorted(np.sort(places), np.arange(intervals) + 0.5)
    pieces = np.zeros((intervals, 4, 4))
    for interval in range(intervals):
        around = knots[first[interval] : first[interval] + 8] - interval
        pieces[interval, : len(around) - 4] = _polynomials(tuple(around.tolist()))
    return torch.from_numpy(pieces), torch.from_numpy(first)


@lru_cache
def _polynomials(knots: tuple[int, ...]) -> NDArray[np.float64]:
    """B-splines on five consecutive knots each, as polynomials between 0 and 1, (splines, 4)."""
    from scipy.interpolate import BSpline  # imported here because it is slow

    at = np.array([0.2, 0.4, 0.6, 0.8])
    values = [
        np.nan_to_num(BSpline.basis_element(knots[k : k + 5], extrapolate=False)(at))
        for k in range(len(knots) - 4)
    ]
    polynomials: NDArray[np.float64] = (
        np.stack(values) @ np.linalg.inv(np.vander(at, increasing=True)).T
    )
    return polynomials


def piecewise_basis(
    radii: Tensor, cutoff: float, pieces: Tensor, first: Tensor, functions: int
) -> Tensor:
    """Values of the functions of ``spline_pieces``.

    Args:
        radii: (E,) Å.
        cutoff: cutoff (Å).
        pieces: (K, 4, 4), the coefficients.
        first: (K,), the index of the first function in each interval.
        functions: number of functions.

    Returns:
        (E, functions), dtype of ``radii``; zero beyond the cutoff.
    """
    intervals = pieces.shape[0]
    t = radii * (float(intervals) / cutoff)
    left = t.detach().floor().clamp(0, intervals - 1)
    f = t - left
    powers = torch.stack([torch.ones_like(f), f, f * f, f * f * f], dim=1)
    index = left.to(torch.int64)
    four = (pieces[index] @ powers.unsqueeze(2)).squeeze(2)
    four = four * (radii < cutoff).to(radii.dtype).unsqueeze(1)
    columns = first[index].unsqueeze(1) + torch.arange(4, device=radii.device)
    full = torch.zeros(radii.shape[0], functions + 4, dtype=radii.dtype, device=radii.device)
    return full.scatter(1, columns, four)[:, :functions]


def smooth_splines(intervals: int, functions: int, waves: int = 4) -> Tensor:
    """Smooth random radial functions (K, functions): sums of a few long sine waves.

    Independent random coefficients would give functions as rough as the knots allow. On mlearn Si
    the gain is within noise (docs/measurements/experiments.md).
    """
    centres = (torch.arange(intervals) + 1.0) / (intervals + 1.0)
    modes = torch.sin(torch.pi * centres.outer(torch.arange(1.0, waves + 1.0)))
    splines: Tensor = modes @ torch.randn(waves, functions) * (2.0 / waves) ** 0.5
    return splines


def fit_splines(
    function: Callable[[Tensor], Tensor],
    basis: Callable[[Tensor], Tensor],
    intervals: int,
    cutoff: float,
    samples: int = 16,
) -> Tensor:
    """Coefficients of the splines that fit given radial functions best.

    Least squares over values and, in units of an interval, slopes, since forces depend on both.

    Args:
        function: maps distances (n,) Å float64 to values (n, F).
        basis: maps distances to values (n, S) of the splines.
        intervals: K, the number of knot intervals.
        cutoff: cutoff (Å).
        samples: number of distances per interval.

    Returns:
        (S, F) float64.
    """
    width = cutoff / intervals
    radii = (torch.arange(intervals * samples, dtype=torch.float64) + 0.5) * (width / samples)
    step = 1e-4 * width

    def rows(of: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            slopes = (of(radii + step) - of(radii - step)) * (width / (2.0 * step))
            return torch.cat([of(radii), slopes])

    coefficients: Tensor = torch.linalg.lstsq(rows(basis), rows(function)).solution
    return coefficients


class SplineRadial(nn.Module):
    """Learned radial functions, C² at the cutoff."""

    def __init__(self, functions: int, intervals: int, cutoff: float) -> None:
        """Make coefficients (K, functions) of smooth random functions of unit size.

        Args:
            functions: number of functions.
            intervals: K, the number of spline intervals.
            cutoff: cutoff (Å).
        """
        super().__init__()
        self.cutoff = cutoff
        self.coefficients = nn.Parameter(smooth_splines(intervals, functions))

    def forward(self, radii: Tensor) -> Tensor:
        """Lengths (E,) Å float64 to values (E, functions) in the dtype of the weights."""
        basis = spline_basis(radii, self.cutoff, self.coefficients.shape[0])
        return basis.to(self.coefficients.dtype) @ self.coefficients


def envelope(radii: Tensor, cutoff: float) -> Tensor:
    """``(1 - (r / r_cut)²)³``: 1 at zero, C² at the cutoff, zero beyond; in the shape of radii."""
    return (1.0 - (radii / cutoff).square()).clamp(min=0.0).pow(3)
