import pytest
import torch
from scipy.interpolate import BSpline

from tesseral.potentials.blocks.geometry import lengths_and_directions
from tesseral.potentials.blocks.radial import (
    fit_splines,
    piecewise_basis,
    spline_basis,
    spline_pieces,
)

CUTOFF, INTERVALS = 5.0, 7


def test_basis_is_the_uniform_cubic_b_spline():
    radii = torch.linspace(0, CUTOFF - 1e-9, 101, dtype=torch.float64)
    ours = spline_basis(radii, CUTOFF, INTERVALS)
    step = CUTOFF / INTERVALS
    for k in range(INTERVALS):
        knots = [(k - 3 + i) * step for i in range(5)]
        theirs = BSpline.basis_element(knots, extrapolate=False)(radii.numpy())
        expected = torch.from_numpy(theirs).nan_to_num()
        torch.testing.assert_close(ours[:, k], expected, rtol=0, atol=1e-12)


def test_value_slope_and_curvature_vanish_at_the_cutoff():
    radii = torch.tensor([CUTOFF - 1e-4], dtype=torch.float64, requires_grad=True)
    total = spline_basis(radii, CUTOFF, INTERVALS).sum()
    (slope,) = torch.autograd.grad(total, radii, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, radii)
    print(f"at the cutoff: {total:.1e}, {slope.item():.1e}, {curvature.item():.1e}")
    assert abs(total) < 1e-11
    assert abs(slope) < 1e-7
    assert abs(curvature) < 1e-3


@pytest.mark.parametrize("radius", [CUTOFF, CUTOFF + 1e-9, 9.0])
def test_nothing_beyond_the_cutoff(radius):
    values = spline_basis(torch.tensor([radius], dtype=torch.float64), CUTOFF, INTERVALS)
    assert torch.count_nonzero(values) == 0


def test_curvature_is_continuous_across_knots():
    knot = 2 * CUTOFF / INTERVALS
    radii = torch.tensor([knot - 1e-7, knot, knot + 1e-7], dtype=torch.float64, requires_grad=True)
    weights = torch.arange(1.0, INTERVALS + 1, dtype=torch.float64).square()
    value = (spline_basis(radii, CUTOFF, INTERVALS) @ weights).sum()
    (slope,) = torch.autograd.grad(value, radii, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), radii)
    assert float(curvature.max() - curvature.min()) < 1e-5


def test_zero_vectors_have_finite_derivatives():
    vectors = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    lengths, directions = lengths_and_directions(vectors)
    (gradient,) = torch.autograd.grad(lengths.sum() + directions.sum(), vectors)
    assert torch.equal(lengths, torch.zeros(2, dtype=torch.float64))
    assert torch.isfinite(gradient).all()


def test_lengths_do_not_change_their_input():
    vectors = torch.randn(5, 3, dtype=torch.float64)
    before = vectors.clone()
    lengths_and_directions(vectors)
    assert torch.equal(vectors, before)


def piecewise(radii, intervals, kinks):
    pieces, first = spline_pieces(intervals, CUTOFF, kinks)
    return piecewise_basis(radii, CUTOFF, pieces, first, intervals + len(kinks))


def test_pieces_without_kinks_are_the_basis():
    radii = torch.linspace(0, CUTOFF + 0.1, 301, dtype=torch.float64)
    expected = spline_basis(radii, CUTOFF, INTERVALS)
    torch.testing.assert_close(piecewise(radii, INTERVALS, []), expected, rtol=0, atol=1e-13)


def kinked(radii):
    """Two functions with jumps of the second derivative at 4.5 Å and at the cutoff."""
    inner = torch.where(radii < 4.5, 0.0, (radii - 4.5).square())
    switched = (CUTOFF - radii).square() * torch.sin(3 * radii)
    return torch.stack([switched, (CUTOFF - radii).square() * (1 + 5 * inner)], dim=1)


def test_kinks_make_what_has_them_cheap():
    """With knots twice at the kinks the error is that of a smooth function: 30 times smaller."""
    radii = torch.linspace(1, CUTOFF - 1e-6, 4001, dtype=torch.float64)
    worst = {}
    for kinks in ((), (4.5, 5.0)):
        coefficients = fit_splines(kinked, lambda r, k=kinks: piecewise(r, 50, k), 50, CUTOFF)
        errors = piecewise(radii, 50, kinks) @ coefficients - kinked(radii)
        worst[len(kinks)] = float(errors.abs().max())
    print(worst)
    assert worst[2] < 3e-4 and worst[0] > 30 * worst[2]


def test_a_kink_at_the_cutoff_leaves_no_step_in_the_slope():
    radii = torch.tensor([CUTOFF - 1e-6], dtype=torch.float64, requires_grad=True)
    values = piecewise(radii, INTERVALS, [CUTOFF])
    (slope,) = torch.autograd.grad(values[0] @ torch.arange(1.0, INTERVALS + 2).double(), radii)
    print(f"at the cutoff: {values.detach().max():.1e}, {slope.item():.1e}")
    assert float(values.detach().abs().max()) < 1e-10
    assert abs(slope.item()) < 1e-4


def test_kinks_between_the_borders_are_refused():
    with pytest.raises(ValueError, match="may have kinks at 4.5 Å, but 7 intervals up to 5 Å have"):
        spline_pieces(INTERVALS, CUTOFF, [4.5])
