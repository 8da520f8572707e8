"""The compiled kernels against plain PyTorch: values, gradients, gradients of gradients."""

import pytest
import torch

from tesseral.potentials.ops import library
from tesseral.potentials.ops.convolution import SplineConvolution
from tesseral.potentials.ops.select import select_ops

pytestmark = [
    pytest.mark.usefixtures("seed"),
    pytest.mark.skipif(not library.available(), reason="no compiled kernels: no C++ compiler?"),
]
CUTOFF, INTERVALS = 4.0, 6
GRAPHS = {"empty": (3, 0), "one edge": (3, 1), "isolated atoms": (40, 25), "dense": (5, 1000)}
DEGREES = [(0, 0, 0), (0, 2, 2), (2, 2, 2), (1, 3, 2), (3, 1, 4), (4, 4, 4)]


def random_graph(n_atoms, n_edges, dtype, l_in, l_edge, channels):
    """Features, harmonics, radii up to beyond the cutoff, and edges sorted by receiver."""
    receivers = torch.randint(n_atoms, (n_edges,)).sort().values
    senders = torch.randint(n_atoms, (n_edges,))
    features = torch.randn(n_atoms, (l_in + 1) ** 2, channels, dtype=dtype)
    harmonics = torch.randn(n_edges, (l_edge + 1) ** 2, dtype=dtype)
    radii = 1.1 * CUTOFF * torch.rand(n_edges, dtype=torch.float64)
    return features, harmonics, radii, senders, receivers


def pair(make, dtype):
    """The same module twice: plain and compiled."""
    plain = make().to(dtype)
    fused = make().to(dtype)
    fused.load_state_dict(plain.state_dict())
    return select_ops(plain, "reference"), select_ops(fused, "fused")


def gradients(function, inputs, weights):
    """Value, gradients, and gradients of a random combination of the gradients."""
    inputs = [x.detach().clone().requires_grad_(True) for x in inputs]
    out = function(*inputs)
    first = torch.autograd.grad((out * weights[0]).sum(), inputs, create_graph=True)
    mixed = sum((g * w).sum() for g, w in zip(first, weights[1:], strict=True))
    second = torch.autograd.grad(mixed, inputs, allow_unused=True)
    second = [torch.zeros_like(x) if s is None else s for s, x in zip(second, inputs, strict=True)]
    return [value.detach() for value in (out, *first, *second)]


def largest_deviation(values, expected):
    """Largest difference, each tensor relative to its own largest value."""
    return max(
        (
            float((a - b).abs().max() / (1e-30 + b.abs().max()))
            for a, b in zip(values, expected, strict=True)
            if a.numel()
        ),
        default=0.0,
    )


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("degrees", DEGREES, ids=str)
@pytest.mark.parametrize("channels", [1, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_convolution_equals_the_reference(graph, degrees, channels, dtype):
    l_in, l_edge, l_out = degrees
    plain, fused = pair(lambda: SplineConvolution(*degrees, channels, INTERVALS, CUTOFF), dtype)
    x, y, r, senders, receivers = random_graph(*GRAPHS[graph], dtype, l_in, l_edge, channels)

    def run(module):
        def convolve(x, y, r, coefficients):
            return torch.func.functional_call(
                module, {"coefficients": coefficients}, (x, y, r, senders, receivers)
            )

        return convolve

    inputs = [x, y, r, plain.coefficients]
    shape = (x.shape[0], (l_out + 1) ** 2, channels)
    weights = [torch.randn(shape, dtype=dtype)] + [torch.randn_like(i) for i in inputs]
    deviation = largest_deviation(
        gradients(run(fused), inputs, weights), gradients(run(plain), inputs, weights)
    )
    print(f"largest relative deviation {deviation:.1e}")
    assert deviation < (5e-6 if dtype == torch.float32 else 1e-13)
