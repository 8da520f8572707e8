"""The reference convolution against the formula written as one sum."""

import pytest
import torch

from tesseral.potentials.blocks.convolution import (
    SplineConvolution,
    convolution_paths,
    neighbor_table,
)
from tesseral.potentials.blocks.radial import spline_basis
from tesseral.potentials.blocks.sphere import EdgeFeatures, Harmonics, coupling, degree_slice

pytestmark = pytest.mark.usefixtures("seed")
CUTOFF, INTERVALS, CHANNELS = 4.0, 6, 5


def random_edges(n_atoms, n_edges):
    receivers = torch.randint(n_atoms, (n_edges,)).sort().values
    senders = torch.randint(n_atoms, (n_edges,))
    vectors = torch.randn(n_edges, 3, dtype=torch.float64)
    return senders, receivers, vectors


def as_written(module, features, vectors, senders, receivers):
    """The definition, edge by edge and path by path."""
    l_max_out = max(l3 for _, _, l3 in module.paths)
    radii = vectors.norm(dim=1)
    harmonics = Harmonics(4)(vectors / radii.unsqueeze(1))
    radial = torch.einsum(
        "ek,kpc->epc", spline_basis(radii, CUTOFF, INTERVALS), module.coefficients.double()
    )
    out = torch.zeros(features.shape[0], (l_max_out + 1) ** 2, CHANNELS, dtype=torch.float64)
    for edge in range(len(senders)):
        for p, (l1, l2, l3) in enumerate(module.paths):
            ways = sum(path[2] == l3 for path in module.paths)
            message = torch.einsum(
                "abm,b,ac->mc",
                coupling(l1, l2, l3),
                harmonics[edge, degree_slice(l2)],
                features[senders[edge], degree_slice(l1)],
            )
            out[receivers[edge], degree_slice(l3)] += radial[edge, p] * message / ways**0.5
    return out


@pytest.mark.parametrize("degrees", [(0, 2, 2), (2, 2, 2), (1, 2, 1), (2, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("size", [(4, 11), (6, 0), (5, 1), (3, 60)], ids=str)
def test_equals_the_definition(degrees, size):
    module = SplineConvolution(*degrees, CHANNELS, INTERVALS, CUTOFF).double()
    features = torch.randn(size[0], (degrees[0] + 1) ** 2, CHANNELS, dtype=torch.float64)
    senders, receivers, vectors = random_edges(*size)
    radii = vectors.norm(dim=1)
    result = module(
        features,
        EdgeFeatures(
            Harmonics(degrees[1])(vectors / radii.unsqueeze(1)), radii, senders, receivers
        ),
        size[0],
    )
    expected = as_written(module, features, vectors, senders, receivers)
    print(f"largest difference {float((result - expected).detach().abs().max()):.1e}")
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-11)


def test_twice_differentiable():
    module = SplineConvolution(1, 1, 1, 2, INTERVALS, CUTOFF).double()
    senders, receivers, _ = random_edges(3, 4)

    def convolve(features, harmonics, radii, coefficients):
        return torch.func.functional_call(
            module,
            {"coefficients": coefficients},
            (features, EdgeFeatures(harmonics, radii, senders, receivers), 3),
        )

    shapes = [(3, 4, 2), (4, 4), (4,), tuple(module.coefficients.shape)]
    inputs = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(convolve, inputs)
    assert torch.autograd.gradgradcheck(convolve, inputs)


def test_paths_have_natural_parity_and_obey_the_triangle_rule():
    paths = convolution_paths(2, 2, 2)
    assert len(paths) == 11
    for l1, l2, l3 in paths:
        assert (l1 + l2 + l3) % 2 == 0
        assert abs(l1 - l2) <= l3 <= l1 + l2


def test_neighbor_table_holds_every_edge_once():
    receivers = torch.tensor([0, 0, 0, 2, 2])
    table = neighbor_table(receivers, 4)
    assert table.tolist() == [[0, 1, 2], [5, 5, 5], [3, 4, 5], [5, 5, 5]]


def test_inputs_are_left_unchanged():
    module = SplineConvolution(1, 1, 1, 2, INTERVALS, CUTOFF)
    senders, receivers, _ = random_edges(3, 4)
    radii = torch.rand(4, dtype=torch.float64)
    inputs = [torch.randn(3, 4, 2), torch.randn(4, 4), radii, senders, receivers]
    before = [tensor.clone() for tensor in inputs]
    module(inputs[0], EdgeFeatures(*inputs[1:]), 3)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))
