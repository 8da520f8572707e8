"""SE(3)-Transformer: its attention weights."""

import pytest
import torch

from tesseral.potentials.architectures.se3transformer import (
    Attention,
    SE3TransformerConfig,
    SE3TransformerLayer,
)
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics

pytestmark = pytest.mark.usefixtures("seed")
CONFIG = SE3TransformerConfig(cutoff=4.0, channels=6, heads=3, l_max=2)


def edges_with(radii):
    """Edges to one atom from as many others."""
    number = len(radii)
    vectors = torch.nn.functional.normalize(torch.randn(number, 3).double(), dim=1)
    harmonics, lengths = EdgeHarmonics(2)(vectors * radii.unsqueeze(1), torch.float64)
    receivers = torch.zeros(number, dtype=torch.int64)
    return EdgeFeatures(harmonics, lengths, 1 + torch.arange(number), receivers)


@torch.no_grad()
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_weights_are_shares_also_for_large_scores(size):
    attention = Attention(CONFIG, 2).double()
    weights = attention(size * torch.randn(8, 9, 6).double(), edges_with(torch.rand(7) * 4), 1)
    assert weights.shape == (7, 3)
    assert float(weights.min()) >= 0
    assert float(weights.sum(0).max()) <= 1 + 1e-12
    assert float(weights.sum(0).max()) > 0.3
    assert float((weights[:, 0] - weights[:, 1]).abs().max()) > 1e-3  # each head has its own


@torch.no_grad()
def test_the_weight_of_a_single_neighbour_vanishes_at_the_cutoff():
    attention = Attention(CONFIG, 2).double()
    features = torch.randn(2, 9, 6).double()
    direction = torch.tensor([[0.48, -0.64, 0.6]], dtype=torch.float64)
    weights = []
    for radius in (2.0, 3.9, 3.99):
        harmonics, lengths = EdgeHarmonics(2)(radius * direction, torch.float64)
        one, zero = torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        edges = EdgeFeatures(harmonics, lengths, one, zero)
        weights.append(float(attention(features, edges, 1).max()))
    print(weights)
    assert weights[0] > 10 * weights[1] > 100 * weights[2] > 0


@torch.no_grad()
def test_values_carry_the_weights():
    """Without attention to a sender, its features do not matter."""
    layer = SE3TransformerLayer(CONFIG, first=False, last=False).double()
    edges = edges_with(torch.tensor([1.5, 2.0]).double())
    features = torch.randn(3, 9, 6).double()
    other = features.clone()
    other[2] = torch.randn(9, 6).double()
    layer.attention.forward = lambda *_: torch.tensor([[0.5] * 3, [0.0] * 3]).double()
    species = torch.zeros(3, dtype=torch.int64)
    first, second = (layer(x, species, edges, 1) for x in (features, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-14)


def test_heads_divide_the_channels():
    with pytest.raises(ValueError, match="`heads` is 3 and `channels` 16"):
        SE3TransformerConfig(channels=16, heads=3)
