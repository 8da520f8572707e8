import pytest
import torch
from e3nn import o3

from tesseral.potentials.blocks.sphere import (
    Harmonics,
    coupling,
    degree_slice,
    lebedev_degrees,
    smallest_rule,
    sphere_grid,
)

pytestmark = pytest.mark.usefixtures("seed")


@pytest.mark.parametrize("l_max", [1, 2, 3, 4, 6])
def test_harmonics_are_those_of_e3nn(l_max):
    directions = torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=1)
    ours = Harmonics(l_max)(directions)
    theirs = o3.spherical_harmonics(list(range(l_max + 1)), directions, True, "component")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


def test_harmonics_are_twice_differentiable():
    directions = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    harmonics = Harmonics(3)
    assert torch.autograd.gradcheck(harmonics, directions)
    assert torch.autograd.gradgradcheck(harmonics, directions)


@pytest.mark.parametrize("degrees", [(0, 1, 1), (1, 1, 2), (2, 2, 2), (1, 2, 3)])
def test_couplings_are_equivariant(degrees):
    l1, l2, l3 = degrees
    tensor = coupling(l1, l2, l3)
    rotation = o3.rand_matrix(dtype=torch.float64)
    wigner = [o3.Irrep(l, (-1) ** l).D_from_matrix(rotation) for l in degrees]  # noqa: E741
    turned = torch.einsum("ai,bj,ck,ijk->abc", *wigner, tensor)
    torch.testing.assert_close(turned, tensor, rtol=0, atol=1e-6)
    assert float(tensor.norm()) == pytest.approx((2 * l3 + 1) ** 0.5)


@pytest.mark.parametrize("points", [6, 14, 26, 38, 50, 86, 110, 194])
def test_grid_integrates_to_its_degree(points):
    """Products of harmonics of degrees a and b with a + b up to the rule's degree are exact."""
    degree = lebedev_degrees()[points]
    l_max = degree // 2
    to_grid, from_grid = sphere_grid(points, l_max)
    error = (from_grid @ to_grid - torch.eye((l_max + 1) ** 2)).abs().max()
    assert error < 1e-11, f"{points} points, l_max {l_max}: {error:.1e}"


def test_product_of_fields_is_exact_on_the_smallest_rule():
    """A pointwise product equals the sum over Gaunt coefficients, and needs 26 points at l = 2."""
    l_max = 2
    points = smallest_rule(3 * l_max)
    assert points == 26
    fields = torch.randn(2, 9, dtype=torch.float64)
    products = []
    for n_points in (points, 194):
        to_grid, from_grid = sphere_grid(n_points, l_max)
        products.append(from_grid @ ((to_grid @ fields[0]) * (to_grid @ fields[1])))
    torch.testing.assert_close(products[0], products[1], rtol=0, atol=1e-12)


def test_unknown_grid_size_names_the_known_ones():
    with pytest.raises(ValueError, match="no Lebedev rule has 27 points; use one of 6, 14, 26"):
        sphere_grid(27, 2)


def test_degree_slices_cover_the_components():
    assert [degree_slice(degree) for degree in range(3)] == [slice(0, 1), slice(1, 4), slice(4, 9)]
