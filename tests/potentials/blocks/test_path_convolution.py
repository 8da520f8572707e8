"""The convolution with paths kept apart against e3nn's tensor product."""

import pytest
import rounding
import torch
from e3nn import o3

from tesseral.potentials.blocks.convolution import SplineConvolution, convolution_paths
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.radial import spline_basis
from tesseral.potentials.blocks.sphere import Harmonics

pytestmark = pytest.mark.usefixtures("seed")
CUTOFF, INTERVALS = 4.0, 6
ALL_PATHS = [
    (l1, l2, l3)
    for l2 in range(3)
    for l1 in range(3)
    for l3 in range(abs(l1 - l2), min(l1 + l2, 2) + 1)
]


def random_edges(n_atoms, n_edges):
    receivers = torch.randint(max(n_atoms, 1), (n_edges,)).sort().values
    senders = torch.randint(max(n_atoms, 1), (n_edges,))
    vectors = torch.randn(n_edges, 3, dtype=torch.float64)
    radii = vectors.norm(dim=1)
    return Harmonics(2)(vectors / radii.unsqueeze(1)), radii, senders, receivers


def flat_rows(n_atoms, channels):
    width = sum((2 * degree + 1) * number for degree, number in enumerate(channels))
    return torch.randn(n_atoms, width, dtype=torch.float64)


def channels_first(rows, channels):
    """Flat rows in the order of e3nn, (C_l, 2l + 1) for each degree."""
    sizes = [(2 * degree + 1) * number for degree, number in enumerate(channels)]
    parts = torch.split(rows, sizes, dim=1)
    return torch.cat(
        [
            part.view(len(rows), 2 * degree + 1, number).mT.flatten(1)
            for degree, (part, number) in enumerate(zip(parts, channels, strict=True))
        ],
        dim=1,
    )


def by_e3nn(module, channels, features, harmonics, radii, senders, receivers, n_out):
    """A "uvu" tensor product with a weight for each edge and channel, and a sum over edges."""
    irreps_in = o3.Irreps([(c, (l, 1)) for l, c in enumerate(channels)])  # noqa: E741
    irreps_edge = o3.Irreps([(1, (l, 1)) for l in range(3)])  # noqa: E741
    order = sorted(range(len(module.paths)), key=lambda p: module.paths[p][2])
    irreps_out = o3.Irreps([(channels[module.paths[p][0]], (module.paths[p][2], 1)) for p in order])
    instructions = [
        (module.paths[p][0], module.paths[p][1], place, "uvu", True)
        for place, p in enumerate(order)
    ]
    product = o3.TensorProduct(
        irreps_in,
        irreps_edge,
        irreps_out,
        instructions,
        path_normalization="none",
        irrep_normalization="component",
        internal_weights=False,
        shared_weights=False,
    )
    basis = spline_basis(radii, CUTOFF, INTERVALS)
    weights = torch.cat([basis @ module.coefficients[p] for p in order], dim=1)
    messages = product(channels_first(features, channels)[senders], harmonics, weights)
    sums = torch.zeros(n_out, messages.shape[1], dtype=torch.float64)
    sums = sums.index_add(0, receivers, messages)
    # e3nn's rows are path by path, ours degree by degree with the paths' channels side by side.
    sizes = [irrep.dim for irrep in irreps_out]
    parts = [
        part.view(n_out, mul, ir.dim)
        for part, (mul, ir) in zip(torch.split(sums, sizes, dim=1), irreps_out, strict=True)
    ]
    degrees = [
        torch.cat([part for part, (_, ir) in zip(parts, irreps_out, strict=True) if ir.l == l], 1)
        for l in range(irreps_out.lmax + 1)  # noqa: E741
    ]
    return torch.cat([degree.mT.flatten(1) for degree in degrees], dim=1)


@pytest.fixture
def double():
    """e3nn rounds its tables to the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "paths, channels",
    [
        (convolution_paths(2, 2, 2), [5, 3, 2]),
        (convolution_paths(0, 2, 2), [4]),
        (convolution_paths(0, 0, 0), [4]),  # of one layer, where harmonics go further
        (convolution_paths(2, 2, 0), [3, 3, 3]),
        (ALL_PATHS, [5, 3, 2]),  # of any parity
    ],
    ids=["natural", "first", "only", "last", "any parity"],
)
@pytest.mark.parametrize("size", [(4, 21), (6, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("padded", [True, False])
def test_equals_e3nn(paths, channels, size, padded):
    module = PathConvolution(paths, channels, INTERVALS, CUTOFF).requires_grad_(False)
    module.padded = padded
    edges = random_edges(*size)
    features = flat_rows(size[0], channels)
    result = module(features, *edges, size[0])
    expected = by_e3nn(module, channels, features, *edges, size[0])
    assert result.shape == expected.shape
    if size[1]:
        print(f"largest difference {float((result - expected).abs().max()):.1e}")
        assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_paths_add_up_to_the_spline_convolution():
    """With equal channels, and sums over paths as ``SplineConvolution`` weighs them."""
    channels = 4
    together = SplineConvolution(2, 2, 2, channels, INTERVALS, CUTOFF).double()
    apart = PathConvolution(together.paths, [channels] * 3, INTERVALS, CUTOFF).double()
    with torch.no_grad():
        for p, coefficients in enumerate(apart.coefficients):
            coefficients.copy_(together.coefficients[:, p])
    edges = random_edges(5, 30)
    features = torch.randn(5, 9, channels, dtype=torch.float64)
    rows = apart(features.flatten(1), *edges, 5)
    sizes = [(2 * l + 1) * c for l, c in enumerate(apart.channels_out)]  # noqa: E741
    sums = [
        part.view(5, 2 * l + 1, -1, channels).sum(2) / (apart.channels_out[l] / channels) ** 0.5
        for l, part in enumerate(torch.split(rows, sizes, dim=1))  # noqa: E741
    ]
    expected = together(features, *edges)
    torch.testing.assert_close(torch.cat(sums, dim=1), expected, rtol=0, atol=1e-12)


def test_only_the_first_atoms_receive():
    module = PathConvolution(convolution_paths(1, 1, 1), [2, 2], INTERVALS, CUTOFF).double()
    harmonics, radii, senders, receivers = random_edges(6, 20)
    receivers, features = receivers % 3, flat_rows(6, [2, 2])
    whole = module(features, harmonics[:, :4], radii, senders, receivers, 6)
    part = module(features, harmonics[:, :4], radii, senders, receivers, 3)
    assert part.shape[0] == 3
    limit = rounding.limit(torch.float64, terms=len(senders) * 3 * 3)  # (m1, m2) of each edge
    torch.testing.assert_close(
        part, whole[:3], rtol=0, atol=limit * float(whole.detach().abs().max())
    )


def test_twice_differentiable():
    module = PathConvolution(convolution_paths(1, 1, 1), [2, 1], INTERVALS, CUTOFF).double()
    _, _, senders, receivers = random_edges(3, 4)

    def convolve(features, harmonics, radii):
        return module(features, harmonics, radii, senders, receivers, 3)

    shapes = [(3, 5), (4, 4), (4,)]
    inputs = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(convolve, inputs)
    assert torch.autograd.gradgradcheck(convolve, inputs)
