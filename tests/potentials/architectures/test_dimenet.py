"""DimeNet: its sum over triplets, which is computed without them."""

import pytest
import torch
from numpy.polynomial.legendre import legval

from tesseral.potentials.architectures.dimenet import DimeNetConfig, DimeNetLayer
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics

pytestmark = pytest.mark.usefixtures("seed")


@torch.no_grad()
def test_the_field_along_an_edge_is_the_sum_over_triplets():
    layer = DimeNetLayer(DimeNetConfig(channels=3, l_max=3), 1.0, False, False).double()
    for linear in (layer.near, layer.far):  # the field itself
        linear.weight.copy_(torch.eye(3).expand_as(linear.weight))
    vectors = torch.randn(12, 3, dtype=torch.float64) * 1.5
    senders, receivers = torch.randint(0, 4, (12,)), torch.randint(0, 4, (12,)).sort().values
    harmonics, radii = EdgeHarmonics(3)(vectors, torch.float64)
    edges = EdgeFeatures(harmonics, radii, senders, receivers)
    messages = torch.randn(12, 3, dtype=torch.float64)
    found = layer.seen(layer.field(messages, edges, 4), edges, 4)
    radial = layer.radial(radii).view(12, 4, 3)
    directions = vectors / radii.unsqueeze(1)
    cosines = (directions @ directions.T).numpy()
    expected = torch.zeros(12, 6, dtype=torch.float64)
    for edge in range(12):
        for half, atom in enumerate((senders[edge], receivers[edge])):
            for other in (receivers == atom).nonzero().flatten():
                for degree in range(4):
                    factor = (2 * degree + 1) * legval(cosines[edge, other], [0] * degree + [1])
                    term = factor * radial[other, degree] * messages[other]
                    expected[edge, 3 * half : 3 * half + 3] += term
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_angles_need_a_degree():
    with pytest.raises(ValueError, match="`l_max` is 0; it must be 1 or more"):
        DimeNetConfig(l_max=0)
    assert DimeNetConfig(l_max=2).edge_degree == 2
