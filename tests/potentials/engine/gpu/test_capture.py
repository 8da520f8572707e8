"""Recorded calls give the same numbers, with a stand-in for recording on a GPU."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable

import pytest
import torch
from ase.build import bulk
from gpu_cases import potential
from host_kernels import host_kernels
from seeds import reseed

from tesseral.data.graph import AtomicGraph, edges_of
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.engine.gpu import capture, host, nequip
from tesseral.potentials.engine.gpu.capture import Captured, Recorded, Results
from tesseral.potentials.engine.gpu.facet import FacetKernels, sizes_of
from tesseral.potentials.engine.gpu.layers import LayerKernels
from tesseral.potentials.engine.gpu.nequip import NequIPKernels
from tesseral.potentials.engine.gpu.source import nequip_source, source
from tesseral.potentials.engine.results import AtomicResults

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


class Recorder:
    """Runs the function again where a GPU would replay it, with the results in the same memory."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, function: Callable[[], Results]) -> Recorded:
        self.recorded += 1
        results, again = host.record(function)
        for part in results:
            if part is not None:
                part.fill_(float("nan"))  # a recorded call computes nothing

        def replay() -> None:
            self.replayed += 1
            again()

        return results, replay


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third call is recorded."""
    monkeypatch.setattr(capture, "CALLS", 2)


@pytest.fixture(params=["facet", "nequip"])
def kernels(request: pytest.FixtureRequest) -> LayerKernels:
    if request.param == "facet":
        model = potential(
            FacetConfig(cutoff=4.0, channels=16, grid_channels=16, l_max=2), torch.float64
        )
        return FacetKernels(model, host_kernels(source(sizes_of(model))))
    model = potential(NequIPConfig(cutoff=4.0, channels=16, l_max=1), torch.float64)
    return NequIPKernels(model, host_kernels(nequip_source(nequip.sizes_of(model))))


def structure(cells: int, seed: int) -> AtomicGraph:
    atoms = bulk("SiC", "zincblende", a=4.36).repeat((cells, 1, 1))
    atoms.rattle(0.1, seed=seed)
    about = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    return atomic_graph(*about, (6, 14), 4.0)


def compare(captured: Captured, kernels: LayerKernels, graph: AtomicGraph) -> AtomicResults:
    """Both results for a structure, with its own list."""
    edges = edges_of(graph)
    lists = kernels.lists(edges, len(graph.species))
    found = captured(graph.species, edges.vectors, lists)
    expected = kernels.with_lists(graph.species, edges.vectors, lists)
    for one, other in zip(found, expected, strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    return found


def test_structures_of_all_sizes(kernels: LayerKernels) -> None:
    recorder = Recorder()
    captured = Captured(kernels.with_lists, recorder)
    for call in range(capture.CALLS):
        compare(captured, kernels, structure(1, call))
    assert recorder.recorded == 0
    for number, cells in enumerate((1, 2, 1, 5, 3, 4, 5)):
        compare(captured, kernels, structure(cells, number))
    assert recorder.recorded == 3  # room for 2, 4, 16 atoms
    assert recorder.replayed == 7


def test_moving_atoms_with_one_list(kernels: LayerKernels) -> None:
    captured, graph = Captured(kernels.with_lists, Recorder()), structure(2, 0)
    reseed(5)
    kept = []
    for _ in range(5):
        moved = graph.positions + 0.05 * torch.randn_like(graph.positions)
        kept.append(compare(captured, kernels, graph._replace(positions=moved)))
        kept.append(AtomicResults(*(part.clone() for part in kept[-1])))  # type: ignore[union-attr]
    other = graph._replace(species=1 - graph.species)
    compare(captured, kernels, other)
    for one, copied in zip(kept[::2], kept[1::2], strict=True):  # unchanged by later calls
        assert torch.equal(one.forces, copied.forces)


def test_large_systems_are_not_recorded(
    kernels: LayerKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "LARGEST", 3)
    recorder = Recorder()
    captured = Captured(kernels.with_lists, recorder)
    for call in range(4):
        compare(captured, kernels, structure(2, call))
    assert recorder.recorded == 0


def test_a_failure_is_said_once(kernels: LayerKernels) -> None:
    def fail(function: Callable[[], Results]) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    captured = Captured(kernels.with_lists, fail)
    for call in range(capture.CALLS):
        compare(captured, kernels, structure(1, call))
    with pytest.warns(UserWarning, match="not recorded as a CUDA graph.*is capturing$"):
        compare(captured, kernels, structure(1, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(captured, kernels, structure(1, 8))
