"""Linear maps and the norm of flat rows."""

import pytest
import torch

from tesseral.potentials.blocks.flat import FlatLinear, FlatNorm
from tesseral.potentials.blocks.mixing import DegreeLinear

pytestmark = pytest.mark.usefixtures("seed")


def test_equal_channels_are_a_degree_linear():
    expected = DegreeLinear(2, 4, 3, scale=0.5)
    linear = FlatLinear([4] * 3, [3] * 3, scale=0.5)
    with torch.no_grad():
        for weight, matrix in zip(linear.weights, expected.weight, strict=True):
            weight.copy_(matrix.unsqueeze(0))
    features = torch.randn(5, 9, 4)
    rows = linear(features.flatten(1))
    torch.testing.assert_close(rows, expected(features).flatten(1))


def test_elements_have_matrices_of_their_own():
    linear = FlatLinear([4, 2], [3, 5], n_species=2)
    alone = []
    for kind in range(2):
        alone.append(FlatLinear([4, 2], [3, 5]))
        for single, both in zip(alone[kind].weights, linear.weights, strict=True):
            single.data = both.data[kind : kind + 1]
    rows, species = torch.randn(6, 10), torch.tensor([0, 1, 1, 0, 0, 1])
    expected = torch.where(species.unsqueeze(1) == 0, alone[0](rows), alone[1](rows))
    torch.testing.assert_close(linear(rows, species), expected)
    assert float((alone[0](rows) - alone[1](rows)).detach().abs().max()) > 0.1


def test_degrees_that_do_not_come_in_are_zero():
    rows = FlatLinear([4], [3, 2])(torch.randn(5, 4))
    assert rows.shape == (5, 3 + 3 * 2)
    assert torch.count_nonzero(rows[:, 3:]) == 0
    assert torch.count_nonzero(rows[:, :3]) > 0


def test_the_norm_divides_by_the_size_of_its_formula():
    norm, rows = FlatNorm([3, 2]), torch.randn(5, 3 + 6, dtype=torch.float64)
    factors = [torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.5, 3.0])]
    for weight, values in zip(norm.weights, factors, strict=True):
        weight.data = values.double()
    squares = rows[:, :3].square().sum(1) + rows[:, 3:].square().sum(1) / 9
    columns = torch.cat([factors[0], factors[1].repeat(3)]).double()
    expected = rows * columns / (squares / 2).sqrt().unsqueeze(1)
    torch.testing.assert_close(norm(rows), expected)
    torch.testing.assert_close(norm(7.0 * rows), norm(rows))


def test_a_new_norm_keeps_the_size_of_typical_rows():
    rows = torch.randn(400, 64 + 3 * 32)
    size = FlatNorm([64, 32])(rows).detach().square().mean()
    assert float(size) == pytest.approx(1.0, rel=0.05)


def test_the_norm_of_zeros_is_zero_and_has_a_slope():
    norm, rows = FlatNorm([3, 2]), torch.zeros(2, 9, requires_grad=True)
    result = norm(rows)
    (slope,) = torch.autograd.grad(result.sum(), rows)
    assert torch.count_nonzero(result) == 0 and torch.isfinite(slope).all()
