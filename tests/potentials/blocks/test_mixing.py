"""Mixing on the sphere: exact products of fields on the smallest grids, and on no smaller ones."""

import pytest
import torch
from e3nn import o3

from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.blocks.mixing import ORDERS, SphereMixing, exact_grid_points
from tesseral.potentials.blocks.sphere import Harmonics, degree_slice, lebedev_degrees, sphere_grid
from tesseral.potentials.testing import random_rotations

SPECIES = torch.tensor([0, 1, 0, 1, 0, 1])
PRODUCTS = [
    (order, l_max, l_out) for order in ORDERS for l_max in (1, 2, 3, 4) for l_out in (0, l_max)
]
SMALLEST_RULE = 6  # points


def random_mixing(l_max, l_out, order, dtype=torch.float64, points=None):
    """All weights random, the constants too."""
    mixing = SphereMixing(l_max, l_out, 3, 8, points, "product", 2, order).to(dtype)
    for parameter in mixing.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixing


def turned_result(mixing, l_max, l_out, rotation):
    """What the mixing makes of a turned cloud of points, as values at turned directions."""
    generator = torch.Generator().manual_seed(1)
    points = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator).double(), dim=1)
    clouds = torch.randn(6, 50, 3, generator=generator).double()
    dtype = mixing.bias.dtype
    features = torch.einsum("pm,npc->nmc", Harmonics(l_max)(points @ rotation.T), clouds)
    mixed = mixing(features.to(dtype), SPECIES).double()
    return torch.einsum("pm,nmc->npc", Harmonics(l_out)(points @ rotation.T), mixed).detach()


def rotation_error(mixing, l_max, l_out):
    """Largest change of the result under rotations, relative to the largest value."""
    expected = turned_result(mixing, l_max, l_out, torch.eye(3, dtype=torch.float64))
    errors = [
        (turned_result(mixing, l_max, l_out, rotation) - expected).abs().max()
        for rotation in random_rotations(4)
    ]
    return float(max(errors) / expected.abs().max())


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("order, l_max, l_out", PRODUCTS)
def test_products_are_equivariant_on_the_smallest_exact_grid(order, l_max, l_out):
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        mixing = random_mixing(l_max, l_out, order, dtype)
        error = rotation_error(mixing, l_max, l_out)
        print(f"{len(mixing.to_grid)} points, {dtype}: {error:.1e}")
        assert error < limit


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize(
    "order, l_max, l_out",
    [case for case in PRODUCTS if exact_grid_points(case[1], case[0], case[2]) > SMALLEST_RULE],
)
def test_products_are_not_equivariant_on_the_next_smaller_grid(order, l_max, l_out):
    mixing = random_mixing(l_max, l_out, order)
    smaller = max(points for points in lebedev_degrees() if points < len(mixing.to_grid))
    to_grid, from_grid = sphere_grid(smaller, l_max)
    mixing.to_grid, mixing.from_grid = to_grid, from_grid[: (l_out + 1) ** 2]
    error = rotation_error(mixing, l_max, l_out)
    print(f"{smaller} points: {error:.1e}")
    assert error > 1e-4


def gaunt_product(a, b, l_out):
    """Product (N, M, C) of two fields on the sphere by e3nn's 3j tensors alone, path by path."""
    l_a, l_b = (round(field.shape[1] ** 0.5) - 1 for field in (a, b))
    out = a.new_zeros(a.shape[0], (l_out + 1) ** 2, a.shape[2])
    for l1 in range(l_a + 1):
        for l2 in range(l_b + 1):
            for l3 in range(abs(l1 - l2), min(l1 + l2, l_out) + 1):
                tensor = o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
                # At the pole only m = 0, in the middle, is not zero, and has sqrt(2 l + 1).
                size = ((2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1)) ** 0.5
                gaunt = size * float(tensor[l1, l2, l3]) * tensor
                left, right = a[:, degree_slice(l1)], b[:, degree_slice(l2)]
                out[:, degree_slice(l3)] += torch.einsum("nac,nbc,abm->nmc", left, right, gaunt)
    return out


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("l_max, l_out", [(1, 1), (2, 2), (3, 1), (2, 0)])
def test_products_are_chains_of_contractions_with_3j_tensors(order, l_max, l_out):
    mixing = random_mixing(l_max, l_out, order)
    features = torch.randn(6, (l_max + 1) ** 2, 3, dtype=torch.float64)
    constant = torch.zeros(1, (l_max + 1) ** 2, 1)
    constant[:, 0] = 1
    with torch.no_grad():
        product = mixing.enter(features) + constant * mixing.bias[SPECIES].unsqueeze(1)
        factors = [mixing.second(features)]
        for further in mixing.further:
            field = further.linear(features)
            factors.append(field + constant * further.bias[SPECIES].unsqueeze(1))
        assert len(factors) == order - 1
        for number, factor in enumerate(factors, 2):
            degree = l_out if number == order else number * l_max
            product = gaunt_product(product, factor, degree)
        expected = mixing.leave(product)
        error = float((mixing(features, SPECIES) - expected).abs().max() / expected.abs().max())
    print(f"largest relative deviation {error:.1e}")
    assert error < 1e-12


def test_weights_of_a_product_of_two_keep_their_names():
    """Models from before there were others must load."""
    names = {name for name, _ in SphereMixing(2, 2, 4, 4, 26, "product", 1).named_parameters()}
    assert names == {"enter.weight", "second.weight", "leave.weight", "bias"}


def test_product_refuses_a_grid_that_is_too_coarse():
    with pytest.raises(ValueError, match="exactly equivariant from 26 grid points on"):
        SphereMixing(2, 2, 4, 4, 14, "product", 1)
    with pytest.raises(ValueError, match="order 3 at l_max 2 is exactly .* from 38 grid points on"):
        SphereMixing(2, 2, 4, 4, 26, "product", 1, order=3)


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="'relu' is not one of product, silu"):
        SphereMixing(2, 2, 4, 4, 26, "relu", 1)


@pytest.mark.parametrize(
    "order, points", [(2, [6, 26, 38, 74]), (3, [14, 38, 74, 110]), (4, [14, 50, 86, 170])]
)
def test_smallest_exact_grids(order, points):
    assert [exact_grid_points(l_max, order) for l_max in (1, 2, 3, 4)] == points


@pytest.mark.parametrize(
    "options, message",
    [
        ({"order": 1}, "`order` is 1; a product on the sphere can have 2 to 4 factors"),
        ({"order": 5}, "`order` is 5; a product on the sphere can have 2 to 4 factors"),
        ({"order": 3, "activation": "silu"}, "`order` is 3, but `activation` 'silu' multiplies"),
        ({"order": 3, "architecture": "schnet"}, "schnet has no order"),
    ],
)
def test_orders_that_make_no_model_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_config(**options)
