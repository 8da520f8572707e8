"""The compiled convolution with paths kept apart against plain PyTorch, with all derivatives."""

from functools import partial

import pytest
import torch
from seeds import reseed

import tesseral.potentials.ops.operators  # noqa: F401  defines torch.ops.tesseral
from tesseral.data.graph import Edges
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled, convolution_operators
from tesseral.potentials.ops.select import select_ops
from tesseral.potentials.ops.wanted_gradients import gradients_of

pytestmark = [
    pytest.mark.usefixtures("seed"),
    pytest.mark.skipif(not compiled.available(), reason="no compiled kernels: no C++ compiler?"),
]
CUTOFF, INTERVALS = 4.0, 6
CASES = {  # paths, channels of the features, highest degree of the harmonics
    "first": (convolution_paths(0, 2, 2), [5], 2),
    "all of degree 2": (convolution_paths(2, 2, 2, odd=True), [37, 16, 3], 2),
    "all of degree 3": (convolution_paths(3, 3, 3, odd=True), [3, 2, 1, 2], 3),
    "natural of degree 4": (convolution_paths(4, 4, 4), [1, 2, 1, 1, 2], 4),
    "last, harmonics of no path": (convolution_paths(1, 1, 0), [40, 33], 3),
    "none of harmonic 0": ([(0, 1, 1), (1, 1, 0), (2, 2, 1)], [4, 4, 18], 2),
}
GRAPHS = {
    "no edges": (3, 2, 0),
    "one atom": (1, 1, 3),
    "ghosts": (20, 6, 150),
}  # atoms, owned, edges


def make(case, dtype, kinks=(2.0, CUTOFF)):
    paths, channels, _ = CASES[case]
    module = PathConvolution(paths, channels, INTERVALS, CUTOFF, kinks).to(dtype)
    with torch.no_grad():  # rougher than a new model's
        for coefficients in module.coefficients:
            coefficients.normal_()
    return module


def random_inputs(case, graph, dtype):
    """Features, harmonics and radii, some beyond the cutoff; then senders, receivers, n_out."""
    _, channels, l_edge = CASES[case]
    atoms, owned, edges = GRAPHS[graph]
    width = sum((2 * degree + 1) * number for degree, number in enumerate(channels))
    return (
        torch.randn(atoms, width, dtype=dtype),
        torch.randn(edges, (l_edge + 1) ** 2, dtype=dtype),
        1.1 * CUTOFF * torch.rand(edges, dtype=torch.float64),
        torch.randint(atoms, (edges,)),
        torch.randint(owned, (edges,)).sort().values,
        owned,
    )


def all_derivatives(module, inputs, fused):
    """Value, gradients by all inputs and weights, and gradients of a combination of these."""
    module.fused = fused
    reseed(5)
    moving = [x.detach().clone().requires_grad_(True) for x in inputs[:3]]
    weights = [*moving, *module.parameters()]
    out = module(moving[0], EdgeFeatures(*moving[1:], *inputs[3:5]), inputs[5])
    first = torch.autograd.grad((out * torch.randn_like(out)).sum(), weights, create_graph=True)
    mixed = sum((each * torch.randn_like(each)).sum() for each in first)
    second = torch.autograd.grad(mixed, weights)
    return [value.detach() for value in (out, *first, *second)]


def largest_deviation(values, expected):
    """Largest difference, each tensor relative to its own largest value."""
    return max(
        float((a - b).abs().max() / (1e-30 + b.abs().max()))
        for a, b in zip(values, expected, strict=True)
        if a.numel()
    )


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_the_reference(case, graph, dtype):
    module, inputs = make(case, dtype), random_inputs(case, graph, dtype)
    result = all_derivatives(module, inputs, fused=True)
    expected = all_derivatives(module, inputs, fused=False)
    assert [each.shape for each in result] == [each.shape for each in expected]
    if GRAPHS[graph][2]:
        assert all(float(each.abs().max()) > 1e-3 for each in result[:4])
    deviation = largest_deviation(result, expected)
    print(f"largest relative deviation {deviation:.1e}")
    assert deviation < (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("isa", compiled.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_instruction_sets_agree(isa, dtype, monkeypatch):
    module = make("all of degree 2", dtype)
    inputs = random_inputs("all of degree 2", "ghosts", dtype)
    expected = all_derivatives(module, inputs, fused=False)
    monkeypatch.setattr(convolution_operators, "kernels", partial(compiled.kernels, isa=isa))
    deviation = largest_deviation(all_derivatives(module, inputs, fused=True), expected)
    print(f"{isa}: largest relative deviation {deviation:.1e}")
    assert deviation < (1e-5 if dtype == torch.float32 else 1e-12)


def test_threads_agree():
    module = make("all of degree 2", torch.float64)
    inputs = random_inputs("all of degree 2", "ghosts", torch.float64)
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(all_derivatives(module, inputs, fused=True))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert largest_deviation(other, results[0]) < 1e-12


def operator_inputs(dtype):
    """Small arguments of the operator and its gradient; no length near a kink or the cutoff."""
    paths, channels = [(0, 1, 1), (1, 1, 0), (1, 1, 1)], [2, 1]
    module = PathConvolution(paths, channels, INTERVALS, CUTOFF, (2.0,))
    radii = torch.tensor([0.9, 1.7, 2.3, 3.1, 3.7], dtype=torch.float64)
    edges = (
        *(torch.randn(3, 5, dtype=dtype), torch.randn(5, 4, dtype=dtype), radii),
        torch.randn(INTERVALS + 1, 4, dtype=dtype),
        *(torch.tensor([2, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 1, 1])),
        *(module.pieces, module.first, CUTOFF, module.path_degrees, channels, 2),
    )
    width = sum((2 * degree + 1) * number for degree, number in enumerate(module.channels_out))
    grad = torch.randn(2, width, dtype=dtype)
    operators = torch.ops.tesseral
    return {
        operators.path_convolution.default: list(edges),
        operators.path_convolution_backward.default: [grad, *edges, True, True],
    }


def differentiable(arguments):
    """The kernels' constants, `pieces`, stay as they are."""
    tensors = [a for a in arguments if isinstance(a, torch.Tensor) and a.is_floating_point()]
    for tensor in tensors:
        tensor.requires_grad_(tensor.dim() < 3)
    return arguments


def test_operators_obey_the_rules_of_torch_library():
    for operator, arguments in operator_inputs(torch.float32).items():
        torch.library.opcheck(operator, differentiable(arguments))


def test_gradients_are_those_of_finite_differences():
    for operator, arguments in operator_inputs(torch.float64).items():
        assert torch.autograd.gradcheck(operator, differentiable(arguments))


def test_second_gradients_are_those_of_finite_differences():
    operator, arguments = next(iter(operator_inputs(torch.float64).items()))
    assert torch.autograd.gradgradcheck(operator, differentiable(arguments))


def test_unwanted_gradients_are_left_out():
    module = make("first", torch.float64)
    *inputs, senders, receivers, n_out = random_inputs("first", "ghosts", torch.float64)
    module.fused = True
    features, harmonics, radii = (each.requires_grad_(True) for each in inputs)
    out = module(features, EdgeFeatures(harmonics, radii, senders, receivers), n_out).sum()
    weight = module.coefficients[0]
    for kind, there, missing in (("weights", weight, radii), ("geometry", radii, weight)):
        there.grad = missing.grad = None
        with gradients_of(kind):
            out.backward(retain_graph=True)
        assert there.grad is not None and missing.grad is None


def test_a_nequip_potential_uses_it():
    channels = {"channels": 6, "l_max": 2, "channels_by_degree": [6, 4, 2]}
    config = NequIPConfig(layers=3, odd_paths=True, **channels)
    potential = MessagePassing(config, (6, 14))
    species, vectors = torch.randint(2, (9,)), 2.0 * torch.randn(60, 3, dtype=torch.float64)
    edges = torch.randint(9, (60,)), torch.randint(9, (60,)).sort().values
    energies = []
    for ops in ("fused", "reference"):
        select_ops(potential, ops)
        assert potential.layers[1].convolution.fused == (ops == "fused")
        energies.append(potential(species, Edges(vectors, *edges)).detach())
    torch.testing.assert_close(*energies, rtol=1e-5, atol=1e-5)
