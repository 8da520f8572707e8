"""Linear maps of flat rows."""

import pytest
import torch

from tesseral.potentials.blocks.flat import FlatLinear
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
