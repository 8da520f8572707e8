"""The kernels for GPUs, compiled for the CPU from the same source, equal plain PyTorch."""

from __future__ import annotations

import shutil

import pytest
import rounding
import torch
from ase import Atoms
from ase.build import bulk
from host_kernels import host_kernels
from seeds import reseed
from torch import Tensor

from tesseral.data.graph import AtomicGraph, Edges, edges_of
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.uncertainty import Calibration
from tesseral.potentials.derivatives import predict
from tesseral.potentials.engine.gpu.facet import FacetKernels, sizes_of
from tesseral.potentials.engine.gpu.source import source
from tesseral.potentials.message_passing import MessagePassing

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
ELEMENTS = (6, 14)
CUTOFF = 4.0
PLAIN: dict[str, object] = {"channels": 16, "grid_channels": 16, "l_max": 2}


def potential(dtype: torch.dtype, bare: bool = False, **options: object) -> MessagePassing:
    """With all that a potential may have besides its layers, unless it is ``bare``."""
    reseed(3)
    config = FacetConfig(**{"cutoff": CUTOFF, "zbl": not bare, **PLAIN, **options})  # type: ignore[arg-type]
    extras: dict[str, object] = {
        "binding_energies": [-3.0, -4.0],
        "inner_radii": (1.2, 1.7, 2.2),
        "uncertainty": Calibration(1.0, 0.7, 2.0, 0.1, 2.0),
    }
    model = MessagePassing(
        config, ELEMENTS, reference_energies=[-1.0, -2.0], dtype=dtype, **({} if bare else extras)
    )  # type: ignore[arg-type]
    if model.uncertainty is not None:
        torch.nn.init.normal_(model.uncertainty.factor)
        torch.nn.init.normal_(model.uncertainty.center)
    return model.requires_grad_(False)


def graph_of(atoms: Atoms) -> AtomicGraph:
    return atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, ELEMENTS, CUTOFF
    )


def crystal() -> AtomicGraph:
    """Eight atoms of two elements, the first two closer than their inner radius."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.positions[1] += 0.3 * (atoms.positions[0] - atoms.positions[1])
    return graph_of(atoms)


def cluster(number: int) -> AtomicGraph:
    """Atoms near each other, all within the cutoff, and one far from them."""
    reseed(7)
    positions = torch.rand(number, 3, dtype=torch.float64).numpy() * 2.3
    positions[-1] += 50
    return graph_of(Atoms("Si" * number, positions=positions))


def compare(model: MessagePassing, graph: AtomicGraph) -> None:
    found = FacetKernels(model, host_kernels(source(sizes_of(model)))).evaluate(
        graph.species, edges_of(graph)
    )
    dtype = model.embedding.dtype
    expected = predict(model.double(), graph)
    virial = found.virials.sum(0)
    pairs: list[tuple[Tensor, Tensor]] = [
        (found.energies, expected.atomic_energies),
        (found.forces, expected.forces),
        (0.5 * (virial + virial.T), expected.virial[0]),
    ]
    if found.uncertainties is not None and expected.uncertainty is not None:
        pairs.append((found.uncertainties, expected.uncertainty))
    assert len(pairs) == (3 if model.uncertainty is None else 4)
    neighbours = len(graph.senders) / max(1, len(graph.species))
    terms = len(model.layers) * (neighbours + 1) * 25 * model.embedding.shape[2]
    limit = rounding.limit(dtype, terms)
    deviations = rounding.deviations(*zip(*pairs, strict=True))
    print(f"deviations {[f'{x:.1e}' for x in deviations]}, limit {limit:.1e}")
    assert max(deviations) < limit


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
    compare(potential(dtype, **options), crystal())


@pytest.mark.parametrize("number", [1, 3, 201])
def test_a_molecule_and_an_isolated_atom(number: int) -> None:
    compare(potential(torch.float64), cluster(number))


def test_a_potential_of_layers_only() -> None:
    compare(potential(torch.float64, bare=True), crystal())


def test_no_atoms() -> None:
    model = potential(torch.float64)
    none = torch.zeros(0, dtype=torch.int64)
    edges = Edges(torch.zeros(0, 3, dtype=torch.float64), none, none)
    found = FacetKernels(model, host_kernels(source(sizes_of(model)))).evaluate(none, edges)
    assert found.energies.shape == (0,) and found.forces.shape == (0, 3)


def test_edges_beyond_the_cutoff_change_nothing() -> None:
    model, graph = potential(torch.float64), crystal()
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    far = atomic_graph(
        graph.species.numpy() * 8 + 6,
        graph.positions.numpy(),
        graph.cell[0].numpy(),
        atoms.pbc,
        ELEMENTS,
        CUTOFF + 1,
    )
    assert len(far.senders) > len(graph.senders)
    own = FacetKernels(model, host_kernels(source(sizes_of(model))))
    near, both = (own.evaluate(g.species, edges_of(g)) for g in (graph, far))
    torch.testing.assert_close(both.forces, near.forces, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.energies, near.energies, rtol=1e-12, atol=1e-12)


def test_repeated_calls_give_the_same_bits() -> None:
    model, graph = potential(torch.float32), crystal()
    own = FacetKernels(model, host_kernels(source(sizes_of(model))))
    one, other = (own.evaluate(graph.species, edges_of(graph)) for _ in range(2))
    assert torch.equal(one.forces, other.forces) and torch.equal(one.virials, other.virials)
