"""Flow of energy between atoms against the motion of their energies, without periodic cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray
from seeds import reseed

from tesseral.data.graph import AtomicGraph, edges_of
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.table import ARCHITECTURES, make_config
from tesseral.potentials.heat_flux import energy_flow
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops

CUTOFF = 3.0


def potential_of(architecture: str, layers: int = 2) -> MessagePassing:
    """A small potential of one architecture for carbon."""
    reseed(0)
    config = make_config(architecture, cutoff=CUTOFF, channels=4, layers=layers)
    potential = MessagePassing(config, [6], mean_neighbors=4.0, dtype=torch.float64)
    select_ops(potential)
    return potential.eval().requires_grad_(False)


def graph_of(atoms: Atoms) -> AtomicGraph:
    cell, pbc = atoms.cell.array, atoms.pbc
    return atomic_graph(atoms.numbers, atoms.positions, cell, pbc, [6], CUTOFF)


def energies(potential: MessagePassing, atoms: Atoms) -> NDArray[np.float64]:
    """Energies of the atoms, (N,) eV."""
    graph = graph_of(atoms)
    with torch.no_grad():
        return potential(graph.species, edges_of(graph)).numpy()


def moving(atoms: Atoms) -> tuple[Atoms, NDArray[np.float64]]:
    """Rattled atoms with random velocities (N, 3)."""
    atoms.rattle(0.1, seed=0)
    return atoms, np.random.default_rng(1).normal(size=atoms.positions.shape)


def flow(potential: MessagePassing, atoms: Atoms, velocities: NDArray[np.float64]):
    return energy_flow(potential, graph_of(atoms), torch.from_numpy(velocities))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flow_in_a_cluster_moves_the_centre_of_energy(architecture: str) -> None:
    """d/dt Σ r_i U_i = Σ U_i v_i + flow - Σ r_i F_i · v_i; the last is the kinetic energy's."""
    potential = potential_of(architecture)
    atoms, velocities = moving(bulk("C", "diamond", a=3.9, cubic=True))
    atoms.pbc = False
    step, sides = 1e-5, []
    for sign in (-1, 1):
        moved = atoms.copy()
        moved.positions += sign * step * velocities
        sides.append(energies(potential, moved) @ moved.positions)
    rate = (sides[1] - sides[0]) / (2 * step)
    known, found = flow(potential, atoms, velocities)
    slopes = []
    for index in range(len(atoms)):
        sides = []
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.positions[index] += sign * step * velocities[index]
            sides.append(energies(potential, moved).sum())
        slopes.append((sides[1] - sides[0]) / (2 * step))
    kinetic = -np.array(slopes) @ atoms.positions
    expected = rate + kinetic - known.numpy() @ velocities
    scale = np.abs(rate).max()
    assert np.abs(found.numpy()).max() > 1e-3 * scale
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6 * scale)


@pytest.mark.parametrize("layers", [1, 2])
def test_flow_in_a_crystal_is_that_into_its_images(layers: int) -> None:
    """Σ (r_i - r_j) (∂U_i/∂r_j · v_j) with i in one cell of a large piece of the crystal."""
    potential = potential_of("facet", layers)
    atoms, velocities = moving(bulk("C", "diamond", a=3.9))
    shear = np.array([[1, 0.1, 0], [0, 1, 0.2], [0, 0, 1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    piece = atoms.repeat((7, 7, 7))
    centre = slice(2 * 171, 2 * 172)  # the cell in the middle
    np.testing.assert_allclose(
        piece.positions[centre] - piece.positions[:2], 3 * np.ones((2, 3)) @ atoms.cell.array
    )
    piece.pbc = False
    graph = graph_of(piece)
    positions = graph.positions.requires_grad_(True)
    values = potential(graph.species, edges_of(graph))[centre]
    np.testing.assert_allclose(
        values.detach().numpy(), energies(potential, atoms), atol=1e-9 * values.abs().max().item()
    )
    expected = np.zeros(3)
    for index, value in enumerate(values):
        (slope,) = torch.autograd.grad(value, positions, retain_graph=True)
        powers = (slope.numpy() * np.tile(velocities, (343, 1))).sum(1)
        here = piece.positions[centre][index]
        expected += powers @ (here - piece.positions)
    _, found = flow(potential, atoms, velocities)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_an_atom_alone_passes_nothing_on() -> None:
    atoms, velocities = moving(Atoms("C"))
    assert not flow(potential_of("facet"), atoms, velocities)[1].any()
