"""NequIP's kernels for training, compiled for the CPU from the same source, equal autograd."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import rounding
import torch
from gpu_cases import GRAPHS, LIKE_NEQUIX, LIKE_SEVENNET, begun, nequip, random_edges
from host_kernels import host_kernels
from seeds import reseed
from torch import Tensor

from tesseral.potentials.architectures.nequip import NequIPLayer
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics
from tesseral.potentials.engine.gpu import training
from tesseral.potentials.engine.gpu.geometry import Begun
from tesseral.potentials.engine.gpu.nequip import sizes_of
from tesseral.potentials.engine.gpu.nequip_training import PathsOver, evaluate
from tesseral.potentials.engine.gpu.source import nequip_training_source
from tesseral.potentials.message_passing import MessagePassing

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
SMALL: dict[str, object] = {"channels": 6, "l_max": 2, "channels_by_degree": [6, 4, 20]}
CASES: dict[str, dict[str, object]] = {
    "SevenNet": LIKE_SEVENNET,
    "Nequix": LIKE_NEQUIX,
    "padded": {**SMALL, "biases": True},
    "one layer": {"layers": 1},
    "scalars": {"l_max": 0},
}
BOTH = [(name, torch.float64) for name in CASES]
BOTH += [(name, torch.float32) for name in ("SevenNet", "padded")]


def over_of(model: MessagePassing, number: int, edges, atoms: int) -> tuple[PathsOver, Begun]:
    sizes = sizes_of(model)
    kernels = host_kernels(nequip_training_source(sizes))
    layer = model.layers[number]
    assert isinstance(layer, NequIPLayer)
    about = begun(sizes, kernels, edges, atoms)  # type: ignore[arg-type]
    return PathsOver(layer.convolution, kernels, sizes, about, first=number == 0), about


def derivatives(function, x: Tensor, edge_inputs: list[Tensor], weights, given) -> list[Tensor]:
    """Messages, their gradients by features and edges, and those of a mixture of all of them.

    Args:
        function: messages from features and the inputs of edges.
        x: features.
        edge_inputs: arrays by which gradients are taken.
        weights: radial functions.
        given: function of the shape of results, gradients by them.
    """
    x = x.clone().requires_grad_(True)
    moving = [each.clone().requires_grad_(True) for each in edge_inputs]
    messages = function(x, *moving)
    by_messages = given("messages", messages).requires_grad_(True)
    first = torch.autograd.grad(
        (messages * by_messages).sum(), [x, *moving], create_graph=True, materialize_grads=True
    )
    mixed = (first[0] * given("change", x)).sum()
    mixed = mixed + given.along(*first[1:]) + (messages * given("last", messages)).sum()
    second = torch.autograd.grad(
        mixed, [by_messages, x, *weights], materialize_grads=True, allow_unused=True
    )
    return [each.detach() for each in (messages, first[0], *second)]


def reference(
    module: PathConvolution, seen: EdgeFeatures, atoms: int, x: Tensor, y: Tensor, r: Tensor
) -> Tensor:
    """Messages in plain PyTorch."""
    return module(x, EdgeFeatures(y, r, *seen[2:]), atoms)


class Given:
    """The same random numbers for both."""

    def __init__(self, edges: int, columns: int, dtype: torch.dtype, inside: Tensor) -> None:
        reseed(6)
        self.rows = torch.randn(edges, columns, dtype=dtype) * inside[:, None]
        self.known: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor) -> Tensor:
        if name not in self.known:
            self.known[name] = torch.randn(like.shape, dtype=like.dtype)
        return self.known[name].clone()

    def along(self, *by_edges: Tensor) -> Tensor:
        """Gradients by edges times the direction, of rows or of harmonics and lengths."""
        if len(by_edges) == 1:
            return (by_edges[0] * self.rows).sum()
        harmonics, radii = by_edges
        return (harmonics[:, 1:] * self.rows[:, 1:]).sum() + (radii * self.rows[:, 0]).sum()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [case for case in BOTH if case[0] in ("SevenNet", "Nequix", "padded")],
    ids=str,
)
@pytest.mark.parametrize("number", [0, 1, 2], ids=["first", "middle", "last"])
def test_convolution(name: str, number: int, dtype: torch.dtype) -> None:
    """Without edges, with one, with isolated atoms, with 200 neighbours."""
    model = nequip(dtype, bare=True, **CASES[name]).requires_grad_(True)
    layer = model.layers[number]
    assert isinstance(layer, NequIPLayer)
    module = layer.convolution
    for graph, (atoms, n_edges) in GRAPHS.items():
        reseed(4)
        edges = random_edges(atoms, n_edges)
        over, about = over_of(model, number, edges, atoms)
        harmonics, radii = EdgeHarmonics(model.harmonics.l_max)(edges.vectors, dtype)
        seen = EdgeFeatures(harmonics, radii, edges.senders, edges.receivers)
        width = sum((2 * degree + 1) * each for degree, each in enumerate(module.channels_in))
        x = torch.randn(atoms, width, dtype=dtype)
        given = Given(n_edges, harmonics.shape[1], dtype, radii < model.cutoff)
        weights = list(module.coefficients)
        module.fused = False
        plain = partial(reference, module, seen, atoms)
        expected = derivatives(plain, x, [harmonics, radii], weights, given)
        found = derivatives(over, x, [about.places.rows], weights, given)
        deviations = rounding.deviations(found, expected)
        intervals = len(module.pieces)
        longest = max(n_edges, 4 * len(module.paths)) * (2 * model.harmonics.l_max + 1) ** 2
        limit = rounding.limit(dtype, 3 * longest + (2 * intervals) ** 2)
        print(f"{graph}: {[f'{each:.1e}' for each in deviations]}, limit {limit:.1e}")
        assert max(deviations) < limit


def test_numerical_derivatives() -> None:
    """Of messages and their gradients by edges, by features and radial functions."""
    model = nequip(torch.float64, bare=True, channels=2, l_max=1, odd_paths=True)
    layer = model.layers[1]
    assert isinstance(layer, NequIPLayer)
    module = layer.convolution
    reseed(4)
    edges = random_edges(3, 4)
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *splines: Tensor) -> tuple[Tensor, Tensor]:
        for place, values in zip(module.coefficients, splines, strict=True):
            place.data = values.detach()
        over, about = over_of(model, 1, edges, 3)
        over._splines = torch.cat([torch.nn.functional.pad(each, (0, 14)) for each in splines], 1)
        rows = about.places.rows.clone().requires_grad_(True)
        messages = over(x, rows)
        (by_rows,) = torch.autograd.grad(messages.square().sum(), rows, create_graph=True)
        return messages, by_rows

    splines = [each.detach().clone().requires_grad_(True) for each in module.coefficients]
    assert torch.autograd.gradcheck(function, (x, *splines), fast_mode=True)


@pytest.mark.parametrize(("name", "dtype"), BOTH, ids=str)
def test_gradients_by_the_weights_are_those_of_autograd(name: str, dtype: torch.dtype) -> None:
    """With nuclei, binding energies and inner radii."""
    model = nequip(dtype, **CASES[name])
    kernels = host_kernels(nequip_training_source(sizes_of(model)))
    found = training.deviation(model, kernels, evaluate)
    print(f"{found:.1e}")
    assert found < (3e-5 if dtype == torch.float32 else 1e-12)
