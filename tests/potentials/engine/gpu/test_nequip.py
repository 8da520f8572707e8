"""NequIP's kernels for GPUs, compiled for the CPU from the same source, equal plain PyTorch."""

from __future__ import annotations

import shutil

import pytest
import torch
from gpu_cases import (
    CUTOFF,
    ELEMENTS,
    LIKE_NEQUIX,
    LIKE_SEVENNET,
    cluster,
    compare,
    crystal,
    nequip,
)
from host_kernels import host_kernels

from tesseral.data.graph import AtomicGraph, Edges, edges_of
from tesseral.deploy.modelfile import load_model
from tesseral.deploy.universal import kept_path
from tesseral.potentials.engine.gpu.nequip import NequIPKernels, sizes_of, supports
from tesseral.potentials.engine.gpu.source import nequip_source
from tesseral.potentials.message_passing import MessagePassing

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def kernels(model: MessagePassing) -> NequIPKernels:
    return NequIPKernels(model, host_kernels(nequip_source(sizes_of(model))))


def check(model: MessagePassing, graph: AtomicGraph) -> None:
    found = kernels(model).evaluate(graph.species, edges_of(graph))
    compare(found, model, graph, max(sizes_of(model).channels))


@pytest.mark.parametrize(
    "options",
    [
        {},
        LIKE_SEVENNET,
        LIKE_NEQUIX,
        {"channels": 6, "l_max": 2, "channels_by_degree": [6, 4, 20], "biases": True},  # padded
        {"channels": 96, "channels_by_degree": [96, 48]},  # six and three blocks of channels
        {"l_max": 3, "odd_paths": True},
        {"l_max": 4},
        {"l_max": 0},
        {"layers": 1},
    ],
    ids=["plain", "SevenNet", "Nequix", "padded", "blocks", "odd", "high", "scalars", "one layer"],
)
def test_a_crystal(options: dict[str, object]) -> None:
    check(nequip(torch.float64, **options), crystal())


@pytest.mark.parametrize(
    "options", [{}, LIKE_SEVENNET, LIKE_NEQUIX], ids=["plain", "SevenNet", "Nequix"]
)
def test_a_crystal_in_float32(options: dict[str, object]) -> None:
    check(nequip(torch.float32, **options), crystal())


@pytest.mark.parametrize("number", [1, 3, 201])
def test_a_molecule_and_an_isolated_atom(number: int) -> None:
    check(nequip(torch.float64), cluster(number))


def test_a_norm_with_an_isolated_atom() -> None:
    check(nequip(torch.float64, field_norm=True), cluster(3))


def test_a_potential_of_layers_only() -> None:
    check(nequip(torch.float64, bare=True), crystal())


def test_no_atoms() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    edges = Edges(torch.zeros(0, 3, dtype=torch.float64), none, none)
    found = kernels(nequip(torch.float64)).evaluate(none, edges)
    assert found.energies.shape == (0,) and found.forces.shape == (0, 3)


def test_edges_beyond_the_cutoff_change_nothing() -> None:
    graph, far = crystal(), crystal(CUTOFF + 1)
    assert len(far.senders) > len(graph.senders)
    own = kernels(nequip(torch.float64, kinks=[CUTOFF]))
    near, both = (own.evaluate(g.species, edges_of(g)) for g in (graph, far))
    torch.testing.assert_close(both.forces, near.forces, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.energies, near.energies, rtol=1e-12, atol=1e-12)


def test_repeated_calls_give_the_same_bits() -> None:
    own, graph = kernels(nequip(torch.float32)), crystal()
    one, other = (own.evaluate(graph.species, edges_of(graph)) for _ in range(2))
    assert torch.equal(one.forces, other.forces) and torch.equal(one.virials, other.virials)


def test_degrees_without_tables_are_not_supported() -> None:
    assert supports(nequip(torch.float64, l_max=3, odd_paths=True))
    assert not supports(nequip(torch.float64, l_max=4, odd_paths=True))
    assert not supports(nequip(torch.float64, l_max=5, layers=2))


@pytest.mark.parametrize("name", ["sevennet-0", "sevennet-l3i5", "nequix-oam-1-pft"])
def test_a_converted_model(name: str) -> None:
    path = kept_path(name)
    if not path.is_file():
        pytest.skip(f"there is no {path}; make it with train-potential convert {name}")
    model, card = load_model(path, ops="reference")
    graph = crystal(card.config.cutoff)
    elements = torch.tensor([card.elements.index(number) for number in ELEMENTS])
    check(model.requires_grad_(False), graph._replace(species=elements[graph.species]))
