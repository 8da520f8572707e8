"""The kernels for GPUs, compiled for the CPU from the same source, equal plain PyTorch."""

from __future__ import annotations

import shutil

import pytest
import torch
from gpu_cases import CUTOFF, cluster, compare, crystal, potential
from host_kernels import host_kernels

from tesseral.data.graph import AtomicGraph, Edges, edges_of
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.engine.gpu.facet import FacetKernels, sizes_of
from tesseral.potentials.engine.gpu.source import source
from tesseral.potentials.message_passing import MessagePassing

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
PLAIN: dict[str, object] = {"channels": 16, "grid_channels": 16, "l_max": 2}


def facet(dtype: torch.dtype, bare: bool = False, **options: object) -> MessagePassing:
    config = FacetConfig(**{"cutoff": CUTOFF, "zbl": not bare, **PLAIN, **options})  # type: ignore[arg-type]
    return potential(config, dtype, bare)


def kernels(model: MessagePassing) -> FacetKernels:
    return FacetKernels(model, host_kernels(source(sizes_of(model))))


def check(model: MessagePassing, graph: AtomicGraph) -> None:
    found = kernels(model).evaluate(graph.species, edges_of(graph))
    compare(found, model, graph, model.embedding.shape[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"l_max": 4, "grid_channels": 32},  # the default: two blocks of channels on the sphere
        {"channels": 6, "grid_channels": 8, "layers": 3},  # padded
        {"channels": 32, "grid_channels": 32, "l_max": 3},  # groups of a whole warp
        {"channels": 48, "l_max": 1, "l_max_edge": 3},  # three blocks of channels
        {"mixings": 2, "layers": 1},
        {"l_max": 0},
    ],
    ids=str,
)
def test_a_crystal(options: dict[str, object], dtype: torch.dtype) -> None:
    check(facet(dtype, **options), crystal())


@pytest.mark.parametrize("number", [1, 3, 201])
def test_a_molecule_and_an_isolated_atom(number: int) -> None:
    check(facet(torch.float64), cluster(number))


def test_a_potential_of_layers_only() -> None:
    check(facet(torch.float64, bare=True), crystal())


def test_no_atoms() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    edges = Edges(torch.zeros(0, 3, dtype=torch.float64), none, none)
    found = kernels(facet(torch.float64)).evaluate(none, edges)
    assert found.energies.shape == (0,) and found.forces.shape == (0, 3)


def test_edges_beyond_the_cutoff_change_nothing() -> None:
    graph, far = crystal(), crystal(CUTOFF + 1)
    assert len(far.senders) > len(graph.senders)
    own = kernels(facet(torch.float64))
    near, both = (own.evaluate(g.species, edges_of(g)) for g in (graph, far))
    torch.testing.assert_close(both.forces, near.forces, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.energies, near.energies, rtol=1e-12, atol=1e-12)


def test_repeated_calls_give_the_same_bits() -> None:
    own, graph = kernels(facet(torch.float32)), crystal()
    one, other = (own.evaluate(graph.species, edges_of(graph)) for _ in range(2))
    assert torch.equal(one.forces, other.forces) and torch.equal(one.virials, other.virials)
