"""The compiled kernels against plain PyTorch: values, gradients, gradients of gradients."""

import re
import warnings
from functools import partial

import pytest
import rounding
import torch
from seeds import reseed

from tesseral.data.graph import Edges
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import SphereMixing
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics, coupling
from tesseral.potentials.engine import evaluate as engine
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled, convolution_operators, operators, tables
from tesseral.potentials.ops.select import select_ops
from tesseral.potentials.ops.wanted_gradients import gradients_of

pytestmark = [
    pytest.mark.usefixtures("seed"),
    pytest.mark.skipif(not compiled.available(), reason="no compiled kernels: no C++ compiler?"),
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


def small_facet(binding=None, **options):
    """A potential with random readouts."""
    reseed(1)
    sizes = {"cutoff": CUTOFF, "channels": 8, "grid_channels": 12, "l_max": 2, **options}
    potential = MessagePassing(
        FacetConfig(**sizes), (6, 14), reference_energies=[-1.0, 2.0], binding_energies=binding
    )
    with torch.no_grad():  # a scale that differs, so that its place in the gradient is tested
        potential.scale.scale.copy_(torch.tensor([0.7, 1.3]))
    return potential


def small_graph(atoms=20, edges=200):
    """Species and edges."""
    reseed(2)
    receivers = torch.randint(atoms, (edges,)).sort().values
    vectors = 2.0 * torch.randn(edges, 3, dtype=torch.float64)
    species, senders = torch.randint(2, (atoms,)), torch.randint(atoms, (edges,))
    return species, Edges(vectors, senders, receivers)


def energies_and_gradient(potential, arguments):
    """Atomic energies and the gradient of their sum by the edge vectors."""
    species, edges = arguments
    vectors = edges.vectors.clone().requires_grad_(True)
    energies = potential(species, edges._replace(vectors=vectors))
    (gradient,) = torch.autograd.grad(energies.sum(), vectors)
    return [energies.detach(), gradient]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("degrees", DEGREES, ids=str)
@pytest.mark.parametrize("channels", [1, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_convolution_equals_the_reference(graph, degrees, channels, dtype):
    l_in, l_edge, l_out = degrees
    plain, fused = pair(lambda: SplineConvolution(*degrees, channels, INTERVALS, CUTOFF), dtype)
    results, expected = [], []
    for _ in range(24 if graph == "one edge" else 1):  # a gradient of one number may be near zero
        x, y, r, *ends = random_graph(*GRAPHS[graph], dtype, l_in, l_edge, channels)
        inputs = [x, y, r, torch.randn_like(plain.coefficients)]  # rougher than a new model's
        shape = (x.shape[0], (l_out + 1) ** 2, channels)
        weights = [torch.randn(shape, dtype=dtype)] + [torch.randn_like(i) for i in inputs]
        for values, module in ((results, fused), (expected, plain)):

            def convolve(x, y, r, coefficients, module=module, ends=ends):
                parameters = {"coefficients": coefficients}
                arguments = x, EdgeFeatures(y, r, *ends), x.shape[0]
                return torch.func.functional_call(module, parameters, arguments)

            values.append(gradients(convolve, inputs, weights))
    found = rounding.deviations(
        *([torch.stack(draws) for draws in zip(*each, strict=True)] for each in (results, expected))
    )
    limits = convolution_limits(plain, channels, *ends, dtype)
    shares = [deviation / limit for deviation, limit in zip(found, limits, strict=True)]
    print("deviations, of their limits:", ", ".join(f"{share:.2f}" for share in shares))
    assert max(shares) < 1


def test_only_the_first_atoms_receive():
    """The kernel is given their number; rows and gradients are those of a sum over all atoms."""
    module = select_ops(SplineConvolution(2, 2, 2, 5, INTERVALS, CUTOFF).double(), "fused")
    x, y, r, senders, receivers = random_graph(20, 150, torch.float64, 2, 2, 5)
    edges, inputs = (senders, receivers % 6), [x, y, r]
    order = edges[1].argsort(stable=True)
    edges = tuple(ends[order] for ends in edges)
    weights = [torch.randn(6, 9, 5).double(), *(torch.randn_like(each) for each in inputs)]

    def part(x, y, r):
        return module(x, EdgeFeatures(y, r, *edges), 6)

    def whole(x, y, r):
        return module(x, EdgeFeatures(y, r, *edges), 20)[:6]

    assert part(*inputs).shape == (6, 9, 5)
    found, expected = gradients(part, inputs, weights), gradients(whole, inputs, weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def convolution_limits(module, channels, senders, receivers, dtype):
    """Rounding of what ``gradients`` gives for a convolution, from the lengths of its sums.

    A distance is at most INTERVALS in units of the spline's intervals and is rounded relative to
    that; from one interval to the next a rough spline changes by about twice its size. So radial
    functions are off by 2 INTERVALS roundoffs, as sums of (2 INTERVALS)² terms are.
    """
    couplings = [(coupling(*path).abs() > 1e-10).double() for path in module.paths]

    def terms(place):  # of the longest sum into one component of a feature, harmonic or result
        totals = {}
        for path, table in zip(module.paths, couplings, strict=True):
            longest = int(table.movedim(place, 0).flatten(1).sum(1).max())
            totals[path[place]] = totals.get(path[place], 0) + longest
        return max(totals.values())

    to_one, from_one = (
        int(torch.bincount(ends, minlength=1).max()) for ends in (receivers, senders)
    )
    path = max(int(table.sum()) for table in couplings)
    value = to_one * terms(2)
    first = [
        from_one * terms(0),  # features
        channels * terms(1),  # harmonics
        channels * len(couplings) + path,  # radii: one radial function for each path and channel
        len(senders) + path,  # coefficients
    ]
    second = [3 * n for n in first]  # each by the gradients of the three other factors
    radial = (2 * INTERVALS) ** 2
    return [rounding.limit(dtype, n + radial) for n in (value, *first, *second)]


@pytest.mark.parametrize("l_max", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_harmonics_equal_the_reference(l_max, dtype):
    plain, fused = pair(lambda: EdgeHarmonics(l_max), torch.float32)
    vectors = torch.randn(37, 3, dtype=torch.float64)
    vectors[5] = 0  # no direction; derivatives stay finite
    weights = [torch.randn(37, (l_max + 1) ** 2, dtype=dtype), torch.randn(37, dtype=torch.float64)]
    results = []
    for module in (fused, plain):
        v = vectors.clone().requires_grad_(True)
        harmonics, radii = module(v, dtype)
        mixed = (harmonics * weights[0]).sum().double() + (radii * weights[1]).sum()
        (first,) = torch.autograd.grad(mixed, v, create_graph=True)
        (second,) = torch.autograd.grad(first.sin().sum(), v)
        results.append([t.detach() for t in (harmonics, radii, first, second)])
    deviation = largest_deviation(*results)
    print(f"largest relative deviation {deviation:.1e}")
    assert deviation < (1e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("sizes", [(2, 2, 5, 7), (3, 0, 16, 32), (1, 1, 40, 16)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mixing_equals_the_grid(sizes, dtype):
    l_in, l_out, channels, grid = sizes
    points = 110
    plain, fused = pair(
        lambda: SphereMixing(l_in, l_out, channels, grid, points, "product", 2), dtype
    )
    features = torch.randn(23, (l_in + 1) ** 2, channels, dtype=dtype)
    species = torch.randint(2, (23,))
    names = [name for name, _ in plain.named_parameters()]

    def run(module):
        def mix(x, *parameters):
            parameters = dict(zip(names, parameters, strict=True))
            return torch.func.functional_call(module, parameters, (x, species))

        return mix

    inputs = [features, *(torch.randn_like(p) for p in plain.parameters())]
    weights = [torch.randn(23, (l_out + 1) ** 2, channels, dtype=dtype)]
    weights += [torch.randn_like(i) for i in inputs]
    deviation = largest_deviation(
        gradients(run(fused), inputs, weights), gradients(run(plain), inputs, weights)
    )
    print(f"largest relative deviation {deviation:.1e}")
    assert deviation < (5e-6 if dtype == torch.float32 else 1e-13)


def operator_inputs(dtype=torch.float64):
    """Small arguments of every operator with derivatives."""
    x, y, r, senders, receivers = random_graph(4, 7, dtype, 1, 2, 3)
    r = 0.3 + 0.8 * r  # away from the cutoff's and the origin's special values
    coefficients = torch.randn(INTERVALS, 5, 3, dtype=dtype)
    assert len(SplineConvolution(1, 2, 1, 3, INTERVALS, CUTOFF).paths) == 5
    edges = (x, y, r, coefficients, senders, receivers, CUTOFF)
    grad = torch.randn(4, 4, 3, dtype=dtype)
    by_harmonics = torch.randn(7, 9, dtype=dtype)
    by_radii, vectors = torch.randn(7, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    a, b = torch.randn(4, 9, 3, dtype=dtype), torch.randn(4, 4, 3, dtype=dtype)
    return {
        "spline_convolution": (*edges, 1, 4),
        "spline_convolution_backward": (grad, *edges, 1, 4, True, True),
        "edge_harmonics": (vectors, 3, dtype),
        "edge_harmonics_backward": (by_harmonics, by_radii, vectors),
        "degree_linear": (a, torch.randn(3, 3, 5, dtype=dtype)),
        "degree_outer": (a, torch.randn(4, 9, 5, dtype=dtype)),
        "sphere_product": (a, b, 2),
    }


def differentiable(arguments):
    return [
        a.requires_grad_(True) if isinstance(a, torch.Tensor) and a.is_floating_point() else a
        for a in arguments
    ]


@pytest.mark.parametrize("name", operator_inputs())
def test_operators_obey_the_rules_of_torch_library(name):
    arguments = differentiable(operator_inputs(torch.float32)[name])
    torch.library.opcheck(getattr(torch.ops.tesseral, name).default, arguments)


@pytest.mark.parametrize("name", operator_inputs())
def test_gradients_are_those_of_finite_differences(name):
    arguments = differentiable(operator_inputs()[name])
    assert torch.autograd.gradcheck(getattr(torch.ops.tesseral, name), arguments)


@pytest.mark.parametrize(
    "name", ["spline_convolution", "edge_harmonics", "degree_linear", "sphere_product"]
)
def test_second_gradients_are_those_of_finite_differences(name):
    arguments = differentiable(operator_inputs()[name])
    assert torch.autograd.gradgradcheck(getattr(torch.ops.tesseral, name), arguments)


@pytest.mark.parametrize("isa", compiled.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_instruction_sets_agree(isa, dtype, monkeypatch):
    plain, fused = pair(lambda: small_facet(l_max=3), dtype)
    arguments = small_graph()
    expected = energies_and_gradient(plain, arguments)
    for module in (operators, convolution_operators):
        monkeypatch.setattr(module, "kernels", partial(compiled.kernels, isa=isa))
    deviation = largest_deviation(energies_and_gradient(fused, arguments), expected)
    print(f"{isa}: largest relative deviation {deviation:.1e}")
    assert deviation < (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("isa", compiled.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"l_max": 3, "layers": 1, "mixings": 2},
        {"layers": 3, "channels": 17, "l_max_edge": 4},
        {"l_max": 4, "l_max_message": 2},
        {"l_max": 4, "l_max_message": 4, "l_max_edge": 3},
        {"l_max": 4, "l_max_message": 3, "l_max_edge": 1},
        {"l_max": 2, "l_max_message": 1},
        {"l_max": 1, "l_max_message": 0},
        {"l_max": 0},
        {"binding": [-5.0, 3.0]},
    ],
    ids=str,
)
def test_analytic_inference_equals_autograd(options, dtype, isa, monkeypatch):
    potential = small_facet(**options).to(dtype)
    species, edges = arguments = small_graph()
    expected = energies_and_gradient(select_ops(potential, "reference"), arguments)
    monkeypatch.setattr(engine, "kernels", partial(compiled.kernels, isa=isa))
    select_ops(potential, "fused")
    assert engine.applies(potential)
    energies, forces, virials = engine.evaluate(potential, *arguments)[:3]
    gradient = expected[1]
    pulled = torch.zeros(len(species), 3, dtype=torch.float64)
    pulled = pulled.index_add(0, edges.senders, gradient)
    pulled = pulled.index_add(0, edges.receivers, -gradient)
    virial = -torch.einsum("ea,eb->ab", edges.vectors, gradient)
    deviation = largest_deviation([energies, forces, virials.sum(0)], [expected[0], pulled, virial])
    print(f"largest relative deviation {deviation:.1e}")
    assert deviation < (1e-5 if dtype == torch.float32 else 1e-12)


def test_analytic_inference_sees_new_weights():
    potential = select_ops(small_facet(), "fused")
    arguments = small_graph()
    before = engine.evaluate(potential, *arguments).energies
    with torch.no_grad():
        potential.readouts[0].linear.weight.add_(0.1)
    after = engine.evaluate(potential, *arguments).energies
    assert largest_deviation([after], energies_and_gradient(potential, arguments)[:1]) < 1e-5
    assert not torch.allclose(before, after)


def test_threads_agree():
    potential = select_ops(small_facet().double(), "fused")
    arguments = small_graph(atoms=60, edges=2000)
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append([*engine.evaluate(potential, *arguments)[:3]])
        results[-1] += energies_and_gradient(potential, arguments)
    torch.set_num_threads(before)
    for other in results[1:]:
        assert largest_deviation(other, results[0]) < 1e-12


def test_torchscript_and_compile_call_the_operators():
    potential = select_ops(small_facet(), "fused").requires_grad_(False)
    arguments = small_graph()
    expected = energies_and_gradient(potential, arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        scripted = torch.jit.script(potential)
        assert largest_deviation(energies_and_gradient(scripted, arguments), expected) < 1e-6
        fused = torch.compile(potential, backend="aot_eager", fullgraph=True)
        assert largest_deviation(energies_and_gradient(fused, arguments), expected) < 1e-6


def test_tables_are_those_of_e3nn():
    number = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
    kept, made = tables.HEADER.read_text(), tables.header()
    assert number.sub("#", kept) == number.sub("#", made)
    kept, made = (
        torch.tensor([float(n) for n in number.findall(text)], dtype=torch.float64)
        for text in (kept, made)
    )
    terms = 9**3  # of the longest sum, a mean of three harmonics of degree 4
    limit = rounding.limit(torch.float64, terms)
    torch.testing.assert_close(kept, made, rtol=limit, atol=limit)


def test_unwanted_gradients_are_left_out():
    potential = select_ops(small_facet(), "fused")
    species, edges = small_graph()
    vectors = edges.vectors.requires_grad_(True)
    energy = potential(species, edges).sum()
    with gradients_of("weights"):
        energy.backward(retain_graph=True)
    assert vectors.grad is None
    weight = potential.layers[0].convolution.coefficients
    wanted = weight.grad.clone()
    weight.grad = None
    with gradients_of("geometry"):
        energy.backward(retain_graph=True)
    assert weight.grad is None and vectors.grad is not None
    energy.backward()
    assert largest_deviation([weight.grad], [wanted]) < 1e-5
