"""Structures and comparisons for tests of the kernels for GPUs."""

from __future__ import annotations

import rounding
import torch
from ase import Atoms
from ase.build import bulk
from seeds import reseed
from torch import Tensor

from tesseral.data.graph import AtomicGraph, Edges
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.nequip import NequIPConfig, NequIPLayer
from tesseral.potentials.blocks.uncertainty import Calibration
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.derivatives import predict
from tesseral.potentials.engine.gpu.geometry import Begun, Places, edge_lists
from tesseral.potentials.engine.gpu.host import HostKernels
from tesseral.potentials.engine.gpu.source import AnySizes
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.message_passing import MessagePassing

ELEMENTS = (6, 14)
CUTOFF = 4.0
GRAPHS = {"empty": (3, 0), "one edge": (3, 1), "isolated atoms": (40, 25), "dense": (5, 1000)}
PLAIN: dict[str, object] = {"channels": 16, "l_max": 1, "spline_intervals": 16}
LIKE_SEVENNET: dict[str, object] = {
    "channels": 128,
    "channels_by_degree": [128, 64, 32],
    "l_max": 2,
    "kinks": [3.5, 4.0],
    "gates": "silu",
    "odd_paths": True,
    "element_self_connection": False,
    "linear_readout": True,
}
LIKE_NEQUIX: dict[str, object] = {
    "channels": 16,
    "channels_by_degree": [16, 9, 5, 4],
    "l_max": 3,
    "gates": "silu",
    "element_self_connection": False,
    "embedding_channels": 7,
    "field_norm": True,
    "linear_readout": True,
}


def potential(config: PotentialConfig, dtype: torch.dtype, bare: bool = False) -> MessagePassing:
    """With all that a potential may have besides its layers, unless it is ``bare``."""
    reseed(3)
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


def graph_of(atoms: Atoms, cutoff: float = CUTOFF) -> AtomicGraph:
    """Edges of a structure."""
    about = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    return atomic_graph(*about, ELEMENTS, cutoff)


def crystal(cutoff: float = CUTOFF) -> AtomicGraph:
    """Eight atoms of two elements, the first two closer than their inner radius."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.positions[1] += 0.3 * (atoms.positions[0] - atoms.positions[1])
    return graph_of(atoms, cutoff)


def cluster(number: int) -> AtomicGraph:
    """Atoms near each other, all within the cutoff, and one far from them."""
    reseed(7)
    positions = torch.rand(number, 3, dtype=torch.float64).numpy() * 2.3
    positions[-1] += 50
    return graph_of(Atoms("Si" * number, positions=positions))


def compare(found: AtomicResults, model: MessagePassing, graph: AtomicGraph, channels: int) -> None:
    """Results equal plain PyTorch in float64, to which the model is changed, to rounding.

    Args:
        found: results for the graph.
        model: potential in the precision of the results.
        graph: the structure.
        channels: numbers of an atom and component that enter a sum.
    """
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
    limit = rounding.limit(dtype, len(model.layers) * (neighbours + 1) * 25 * channels)
    deviations = rounding.deviations(*zip(*pairs, strict=True))
    print(f"deviations {[f'{x:.1e}' for x in deviations]}, limit {limit:.1e}")
    assert max(deviations) < limit


def nequip(dtype: torch.dtype, bare: bool = False, **options: object) -> MessagePassing:
    config = NequIPConfig(**{"cutoff": CUTOFF, "zbl": not bare, **PLAIN, **options})  # type: ignore[arg-type]
    model = potential(config, dtype, bare)
    for layer in model.layers:  # those of new potentials are zero, and factors of a norm equal
        assert isinstance(layer, NequIPLayer)
        for bias in (layer.enter.bias, layer.leave.bias):
            if bias is not None:
                torch.nn.init.normal_(bias)
        for factors in [] if layer.norm is None else layer.norm.weights:
            torch.nn.init.uniform_(factors, 0.5, 1.5)
    return model


def random_edges(n_atoms: int, n_edges: int) -> Edges:
    """Edges up to beyond the cutoff."""
    receivers = torch.randint(n_atoms, (n_edges,)).sort().values
    vectors = torch.nn.functional.normalize(torch.randn(n_edges, 3, dtype=torch.float64))
    lengths = 0.2 + 1.1 * CUTOFF * torch.rand(n_edges, 1, dtype=torch.float64)
    lengths[:1] = 2  # a single edge is within the cutoff
    return Edges(vectors * lengths, torch.randint(n_atoms, (n_edges,)), receivers)


def begun(sizes: AnySizes, kernels: HostKernels, edges: Edges, atoms: int) -> Begun:
    """Places of the edges of a potential without pair energies."""
    lists, kinds = edge_lists(edges, atoms), torch.zeros(atoms, dtype=torch.int32)
    n_edges, row = len(edges.vectors), (sizes.l_edge + 1) ** 2
    places = Places(torch.empty_like(lists.senders), torch.zeros(n_edges, row, dtype=sizes.dtype))
    about = edges.vectors, kinds, lists.senders, lists.receivers, None
    kernels("edges_forward", n_edges, 1, lists.counts[1:], *about, places.rows, places.intervals)
    return Begun(kinds, lists, edges.vectors, places, edges.vectors.new_zeros(atoms), None)
