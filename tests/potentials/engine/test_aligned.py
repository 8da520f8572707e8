"""The convolution in the frames of edges: its radial functions, and edges along the axes."""

import pytest
import rounding
import torch
from seeds import reseed

from tesseral.data.graph import Edges
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.radial import spline_basis
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics
from tesseral.potentials.derivatives import forces_and_virial
from tesseral.potentials.engine.evaluate import evaluate
from tesseral.potentials.engine.facet import aligned_coefficients
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops

CUTOFF, INTERVALS, CHANNELS = 4.0, 6, 3


@pytest.mark.parametrize("degrees", [(2, 4, 4), (1, 1, 2), (0, 3, 3), (2, 1, 4)], ids=str)
def test_a_message_along_the_polar_axis(degrees):
    """Σ_l1 w[l3, l1, |m|] x[l1, m] is the convolution of an edge along y."""
    l_in, l_edge, l_out = degrees
    reseed(0)
    convolution = SplineConvolution(*degrees, CHANNELS, INTERVALS, CUTOFF).double()
    vectors = torch.tensor([[0.0, 1.7, 0.0]], dtype=torch.float64)
    edges = EdgeFeatures(
        *EdgeHarmonics(l_edge)(vectors, torch.float64), torch.tensor([1]), torch.tensor([0])
    )
    features = torch.randn(2, (l_in + 1) ** 2, CHANNELS, dtype=torch.float64)
    (expected,) = convolution(features, edges, 1)

    table = aligned_coefficients(convolution)
    assert not table[-4:].any()
    weights = iter(
        torch.einsum("k,kwc->wc", spline_basis(edges.radii, CUTOFF, INTERVALS)[0], table[:-4])
    )
    message = torch.zeros_like(expected)
    for l3 in range(l_out + 1):
        for l1 in range(l_in + 1):
            for m in range(min(l1, l3) + 1):
                weight = next(weights)
                for side in {m, -m}:
                    message[l3 * l3 + l3 + side] += weight * features[1, l1 * l1 + l1 + side]
    assert next(weights, None) is None
    torch.testing.assert_close(message, expected)


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_edges_along_the_axes_and_beyond_the_cutoff(dtype):
    """Frames change abruptly at z = 0; the results do not know of frames."""
    reseed(1)
    model = MessagePassing(
        FacetConfig(cutoff=CUTOFF, channels=5, grid_channels=6, l_max=3),
        (6,),
        reference_energies=[0.0],
    )
    model = model.to(dtype).requires_grad_(False)
    axes = torch.eye(3, dtype=torch.float64)
    tilted = torch.tensor([[0.6, 0.0, -0.8], [1e-9, 1.0, -1e-9]], dtype=torch.float64)
    vectors = torch.cat([1.5 * axes, -2.5 * axes, 3 * tilted, 4.0 * axes, -7.0 * axes])
    count = len(vectors)
    edges = Edges(vectors, torch.arange(count) % 3, torch.arange(count) * 3 // count)
    species = torch.zeros(3, dtype=torch.int64)
    found = evaluate(select_ops(model, "fused"), species, edges)
    moved = edges._replace(vectors=vectors.clone().requires_grad_(True))
    energies = select_ops(model, "reference")(species, moved)
    expected = forces_and_virial(energies, moved, species, 1, False)
    # Two layers of sums over edges, features, channels and components.
    limit = rounding.limit(dtype, 2 * 16 * (count + 16 * 5))
    for name, deviation in zip(
        ("energies", "forces"),
        rounding.deviations(found[:2], (energies.detach(), expected[0])),
        strict=True,
    ):
        print(f"{name}: relative deviation {deviation:.1e}, limit {limit:.1e}")
        assert deviation < limit
