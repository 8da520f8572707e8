"""Structures and comparisons for tests of the kernels for GPUs."""

from __future__ import annotations

import rounding
import torch
from ase import Atoms
from ase.build import bulk
from seeds import reseed
from torch import Tensor

from tesseral.data.graph import AtomicGraph
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.blocks.uncertainty import Calibration
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.derivatives import predict
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.message_passing import MessagePassing

ELEMENTS = (6, 14)
CUTOFF = 4.0


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
