"""A graph and potentials for the tests of architectures that sample orientations."""

from __future__ import annotations

import torch
from ase.build import bulk

from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.message_passing import MessagePassing

CUTOFF = 3.6  # Å
ELEMENTS = (6, 14)


def rattled_silicon_carbide():
    """Graph of eight atoms, far from any symmetry."""
    atoms = bulk("SiC", "zincblende", a=4.38, cubic=True)
    atoms.rattle(0.15, seed=0)
    return atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, ELEMENTS, CUTOFF
    )


def calibrated(config, graph):
    """Potential in float64 with random weights, calibrated on a graph, that gives forces."""
    torch.manual_seed(0)
    made = MessagePassing(config, ELEMENTS, mean_neighbors=12.0, dtype=torch.float64)
    calibrate(made, graph)
    for readout in made.readouts:
        torch.nn.init.normal_(readout.linear.weight, std=0.1)
    return made
