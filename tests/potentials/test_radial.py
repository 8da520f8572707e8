import pytest
import torch
from scipy.interpolate import BSpline

from tesseral.potentials.geometry import lengths_and_directions
from tesseral.potentials.radial import spline_basis

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
