import pytest
import torch
from e3nn import o3

from tesseral.potentials.architectures.segnn import SEGNNConfig, SEGNNLayer, SteerableLinear
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.message_passing import MessagePassing

HARMONICS = [o3.Irreps.spherical_harmonics(degree) for degree in range(4)]


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("degrees", [(0, 2, 2), (2, 2, 2), (2, 1, 3), (3, 3, 0)])
def test_steerable_linear_turns_with_features_and_attributes(degrees):
    """Also under reflection, under which degree l changes sign as (-1)^l."""
    l_in, l_attributes, l_out = degrees
    linear = SteerableLinear(*degrees, 3, [4] * (l_out + 1)).double().requires_grad_(False)
    features = torch.randn(5, (l_in + 1) ** 2, 3, dtype=torch.float64)
    attributes = torch.randn(5, (l_attributes + 1) ** 2, dtype=torch.float64)
    matrix = -o3.rand_matrix(dtype=torch.float64)
    into, by, out = (HARMONICS[degree].D_from_matrix(matrix) for degree in degrees)
    turned = torch.cat(linear(into @ features, attributes @ by.T), dim=1)
    expected = out @ torch.cat(linear(features, attributes), dim=1)
    print(f"largest difference {float((turned - expected).abs().max()):.1e}")
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)  # of e3nn's matrices
    assert float(expected.square().mean()) > 0.1


@pytest.mark.usefixtures("seed")
@torch.no_grad()
def test_steerable_linear_keeps_the_variance():
    linear = SteerableLinear(2, 2, 2, 32, [32, 32, 32])
    directions = torch.nn.functional.normalize(torch.randn(500, 3), dim=1)
    attributes = o3.spherical_harmonics([0, 1, 2], directions, False, "component")
    sizes = [float(part.square().mean()) for part in linear(torch.randn(500, 9, 32), attributes)]
    print("variance of degrees 0, 1, 2:", sizes)
    assert all(0.7 < size < 1.4 for size in sizes)


@pytest.mark.usefixtures("seed")
@torch.no_grad()
def test_messages_are_not_linear_in_what_is_sent():
    """Which is what sets SEGNN apart from a convolution."""
    layer = SEGNNLayer(SEGNNConfig(l_max=1), 1.0, False, False).double()
    pair, harmonics = torch.randn(6, 4, 16).double(), torch.randn(6, 4).double()
    radii = torch.full((6,), 3.0, dtype=torch.float64)
    edges = EdgeFeatures(harmonics, radii, *[torch.zeros(6, dtype=torch.int64)] * 2)
    once, twice = (layer.messages(k * pair, edges) for k in (1.0, 2.0))
    relative = float((twice - 2 * once).norm() / twice.norm())
    print(f"a message differs by {relative:.2f} of its size from a linear one")
    assert relative > 0.03


def test_attributes_of_an_atom_alone_are_those_of_a_scalar():
    layer = SEGNNLayer(SEGNNConfig(l_max=2), 1.0, True, True)
    none = torch.zeros(0, dtype=torch.int64)
    attributes = layer.node_attributes(
        EdgeFeatures(torch.zeros(0, 9), torch.zeros(0), none, none), 2
    )
    assert attributes.tolist() == [[1.0] + [0.0] * 8] * 2


def test_edge_degrees_too_low_for_the_messages_are_refused():
    config = SEGNNConfig(l_max=3, l_max_edge=1)
    with pytest.raises(ValueError, match="`l_max_edge` is 1 and l_max 3.*`l_max_edge` 2 or more"):
        MessagePassing(config, (14,))
