"""Repeating a plan gives the results of the engine from which it was made."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch
from gpu_cases import CUTOFF, crystal, potential
from host_kernels import host_kernels
from torch import Tensor

from tesseral.data.graph import edges_of
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.engine.gpu import evaluate, facet, plan
from tesseral.potentials.engine.gpu.facet import FacetKernels
from tesseral.potentials.engine.gpu.geometry import edge_lists
from tesseral.potentials.engine.gpu.host import HostKernels
from tesseral.potentials.message_passing import MessagePassing

RESULTS = {"energies": (), "forces": (3,), "virials": (3, 3), "uncertainties": ()}


def model_of(bare: bool = False) -> MessagePassing:
    config = FacetConfig(cutoff=CUTOFF, channels=16, grid_channels=16, l_max=2, zbl=not bare)
    return potential(config, torch.float64, bare)


def repeat(made: plan.Plan, kernels: HostKernels, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Results of a plan, whose memory is NaN before."""
    lines = iter(made.text.splitlines())
    assert next(lines) == f"tesseral_gpu {plan.VERSION}" and next(lines).startswith("block ")
    atoms, edges = len(inputs["species"]), len(inputs["senders"])
    memory = []
    for _ in range(int(next(lines).removeprefix("slots "))):
        fixed, per_atom, per_edge = map(int, next(lines).split())
        size = fixed + atoms * per_atom + edges * per_edge
        memory.append(torch.full((size,), 0xFF, dtype=torch.uint8))
    memory[0][:] = torch.frombuffer(bytearray(made.weights), dtype=torch.uint8)
    for name, values in inputs.items():
        memory[plan.NAMES.index(name)][:] = values.contiguous().view(-1).view(torch.uint8)
    for _ in range(int(next(lines).removeprefix("steps "))):
        words = iter(next(lines).split())
        if next(words) != "launch":
            continue
        name, by, lanes, count = next(words), next(words), int(next(words)), int(next(words))
        arguments: list[Tensor | int | float | None] = []
        for _ in range(count):
            match next(words):
                case "p":
                    arguments.append(memory[int(next(words))][int(next(words)) :])
                case "i":
                    arguments.append(int(next(words)))
                case "d":
                    arguments.append(float(next(words)))
                case kind:
                    assert kind == "n"
                    arguments.append(None)
        assert by in ("atoms", "edges")
        kernels(name, atoms if by == "atoms" else edges, lanes, *arguments)
    found = {name: memory[plan.NAMES.index(name)].view(torch.float64) for name in RESULTS}
    return {name: found[name].view(-1, *shape) for name, shape in RESULTS.items()}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("bare", [False, True])
def test_a_plan_gives_what_the_engine_gives(bare: bool) -> None:
    model, graph = model_of(bare), crystal()
    made = plan.make_plan(model)
    kernels = host_kernels(made.source)
    edges = edges_of(graph)
    expected = FacetKernels(model, kernels).evaluate(graph.species, edges)
    lists = edge_lists(edges, len(graph.species))
    inputs = {"species": graph.species.int(), "vectors": edges.vectors, **lists._asdict()}
    found = repeat(made, kernels, inputs)
    for name, wanted in expected._asdict().items():
        if wanted is None:
            assert not found[name].numel()
        else:
            torch.testing.assert_close(found[name], wanted, rtol=0, atol=0)


def test_a_plan_needs_no_more_memory_than_the_engine() -> None:
    model = model_of()
    lines = plan.make_plan(model).text.splitlines()
    slots = [line.split() for line in lines[3 : 3 + int(lines[2].split()[1])]]
    per_atom, per_edge = (sum(int(slot[column]) for slot in slots) for column in (1, 2))
    needed = evaluate.bytes_needed(1000, 28000, facet.sizes_of(model))
    assert 1000 * per_atom + 28000 * per_edge < 1.1 * needed


def test_a_plan_needs_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError("a library was opened")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert "launch pull_2 atoms" in plan.make_plan(model_of()).text
