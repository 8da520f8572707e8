import pytest
import torch

from tesseral.potentials.mixing import SphereMixing, exact_grid_points


def test_product_refuses_a_grid_that_is_too_coarse():
    with pytest.raises(ValueError, match="exactly equivariant from 26 grid points on"):
        SphereMixing(2, 2, 4, 4, 14, "product", 1)


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="'relu' is not one of product, silu"):
        SphereMixing(2, 2, 4, 4, 26, "relu", 1)


@pytest.mark.parametrize("l_max, points", [(1, 6), (2, 26), (3, 38), (4, 74)])
def test_smallest_exact_grids(l_max, points):
    assert exact_grid_points(l_max) == points


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_weights_do_not_depend_on_the_grid(l_max):
    """The exact product gives the same result on any finer grid."""
    coarse = SphereMixing(l_max, l_max, 3, 8, exact_grid_points(l_max), "product", 2)
    fine = SphereMixing(l_max, l_max, 3, 8, 194, "product", 2)
    fine.load_state_dict(coarse.state_dict())
    features = torch.randn(6, (l_max + 1) ** 2, 3)
    species = torch.tensor([0, 1, 0, 1, 0, 1])
    torch.testing.assert_close(
        fine(features, species), coarse(features, species), rtol=1e-4, atol=1e-4
    )
