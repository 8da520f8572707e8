"""Training by the kernels for GPUs, compiled for the CPU from the same source, equals autograd."""

from __future__ import annotations

import shutil

import pytest
import rounding
import torch
from gpu_cases import CUTOFF, GRAPHS, begun, random_edges
from host_kernels import host_kernels
from seeds import reseed
from torch import Tensor

from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics
from tesseral.potentials.engine.gpu import training
from tesseral.potentials.engine.gpu.facet import padded_to_groups, sizes_of
from tesseral.potentials.engine.gpu.source import Sizes, training_source
from tesseral.potentials.message_passing import MessagePassing

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
INTERVALS = 6


def sizes_for(degrees: tuple[int, int, int], channels: int, dtype: torch.dtype) -> Sizes:
    l_in, l_edge, l_out = degrees
    wide = padded_to_groups(channels)
    about = dtype, CUTOFF, INTERVALS, 2, l_edge, l_out, wide, wide
    return Sizes(*about, layers=(l_in,), mixings=((l_out, l_in),))


def by_autograd(
    module: SplineConvolution, features: Tensor, seen: EdgeFeatures, given: list[Tensor]
) -> list[Tensor]:
    """The results of the four passes; ``given``: see ``by_kernels``."""
    by_messages, change, rows, last = (each.clone().requires_grad_(True) for each in given)
    inputs = [x.detach().clone().requires_grad_(True) for x in (features, *seen[:2])]
    x, y, r = inputs
    messages = module.reference(x, EdgeFeatures(y, r, *seen[2:]), len(x))
    first = torch.autograd.grad((messages * by_messages).sum(), inputs, create_graph=True)
    mixed = (first[0] * change).sum() + (first[1][:, 1:] * rows[:, 1:]).sum()
    mixed = mixed.double() + (first[2] * rows[:, 0]).sum()
    wanted = [by_messages, x, module.coefficients]
    moved = torch.autograd.grad(mixed, wanted, allow_unused=True, retain_graph=True)
    moved = [torch.zeros_like(b) if a is None else a for a, b in zip(moved, wanted, strict=True)]
    second = torch.autograd.grad((messages * last).sum(), wanted[1:])
    by_rows = torch.cat([first[2].to(y)[:, None], first[1][:, 1:]], dim=1)
    collected = [a + b for a, b in zip(second, moved[1:], strict=True)]
    return [each.detach() for each in (messages, first[0], by_rows, moved[0], *collected)]


def by_kernels(operators: object, module: SplineConvolution, x: Tensor, given: list[Tensor]):
    """The same; given the gradients by messages, changes of features and edges, later gradients."""
    by_messages, change, rows, last = given
    convolution = operators.convolution(module)  # type: ignore[attr-defined]
    found = [convolution.forward(x), convolution.backward(by_messages)]
    inside = (operators._begun.places.intervals >= 0)[:, None]  # type: ignore[attr-defined]
    found.append(torch.where(inside, *convolution.by_edges, torch.zeros_like(rows)))
    found += [convolution.move(change, (rows,)), convolution.collect(last)]
    return [*found, convolution.by_coefficients]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("degrees", "channels"),
    [
        *[((0, 0, 0), 16), ((0, 2, 2), 5), ((1, 3, 2), 40), ((2, 2, 2), 32), ((3, 1, 4), 1)],
        pytest.param((4, 4, 4), 1, marks=pytest.mark.slow),  # 17 s to compile
    ],
    ids=str,
)
def test_convolution(degrees: tuple[int, int, int], channels: int, dtype: torch.dtype) -> None:
    """In the largest of the graphs with 200 neighbours of each atom."""
    reseed(4)
    l_in, l_edge, l_out = degrees
    sizes = sizes_for(degrees, channels, dtype)
    kernels = host_kernels(training_source(sizes))
    module = SplineConvolution(*degrees, channels, INTERVALS, CUTOFF).to(dtype)
    torch.nn.init.normal_(module.coefficients)
    for graph, (atoms, number) in GRAPHS.items():
        edges = random_edges(atoms, number)
        harmonics, radii = EdgeHarmonics(l_edge)(edges.vectors, dtype)
        seen = EdgeFeatures(harmonics, radii, edges.senders, edges.receivers)
        operators = training._Operators(
            kernels, sizes, begun(sizes, kernels, edges, atoms), torch.zeros(atoms).long()
        )
        outside = (atoms, (l_out + 1) ** 2, channels), (atoms, (l_in + 1) ** 2, channels)
        shapes = outside[0], outside[1], (number, (l_edge + 1) ** 2), outside[0]
        given = [torch.randn(shape, dtype=dtype) for shape in shapes]
        x = torch.randn(outside[1], dtype=dtype)
        found = by_kernels(operators, module, x, given)
        deviations = rounding.deviations(found, by_autograd(module, x, seen, given))
        longest = max(number, channels * len(module.paths)) * (2 * l_in + 1) * (2 * l_edge + 1)
        limit = rounding.limit(dtype, 3 * longest + (2 * INTERVALS) ** 2)
        print(f"{graph}: {[f'{x:.1e}' for x in deviations]}, limit {limit:.1e}")
        assert max(deviations) < limit


OPTIONS: dict[str, dict[str, object]] = {
    "default": {"l_max": 4, "grid_channels": 32},
    "odd channels": {"layers": 3, "channels": 6, "grid_channels": 7, "l_max": 2},
    "two mixings": {"layers": 1, "mixings": 2, "l_max": 2, "zbl": True},
    "scalars": {"l_max": 0},
}


def potential_of(dtype: torch.dtype, **options: object) -> MessagePassing:
    """With pair energies that have no weights."""
    reseed(3)
    config = FacetConfig(**{"cutoff": CUTOFF, "channels": 16, "grid_channels": 16, **options})  # type: ignore[arg-type]
    extras = {"binding_energies": [-3.0, -4.0], "inner_radii": (1.2, 1.7, 2.2)}
    return MessagePassing(config, (6, 14), reference_energies=[-1.0, -2.0], dtype=dtype, **extras)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_by_the_weights_are_those_of_autograd(name: str, dtype: torch.dtype) -> None:
    model = potential_of(dtype, **OPTIONS[name])
    found = training.deviation(model, host_kernels(training_source(sizes_of(model))))
    print(f"{found:.1e}")
    assert found < (3e-5 if dtype == torch.float32 else 1e-12)
