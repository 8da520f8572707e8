"""Flow of energy between moving atoms, for potentials with any number of layers.

With R = Σ r_i E_i, where E_i is the energy of an atom with its kinetic energy, the heat flux is
dR/dt = Σ E_i v_i + Σ_ij (r_i - r_j) (∂U_i/∂r_j · v_j). In a periodic cell, j runs over the atoms
and their images, whose positions are not folded back: M. F. Langer, F. Knoop, C. Carbogno,
M. Scheffler and M. Rupp, Phys. Rev. B 108, L100302 (2023). The sum over j is the rate of U_i, and
that over i the force on j, so two backward passes suffice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesseral.data.graph import AtomicGraph, Edges
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.wanted_gradients import gradients_of
from tesseral.potentials.surroundings import central_energies, unfolded
from tesseral.process import survive_forks


def energy_flow(
    potential: MessagePassing, graph: AtomicGraph, velocities: Tensor
) -> tuple[Tensor, Tensor]:
    """Energies of the atoms of a structure, and the flow of energy between them.

    Args:
        potential: potential whose weights do not require gradients.
        graph: graph of one structure, with the edges within the cutoff.
        velocities: (N, 3), Å per unit of time.

    Returns:
        Energies (N,) eV, and Σ_ij (r_i - r_j) (∂U_i/∂r_j · v_j), (3,) eV Å per unit of time.
    """
    survive_forks()
    part, positions = unfolded(graph, len(potential.layers))
    _, senders, receivers = part.edges
    number = len(graph.positions)
    positions = positions - positions[:number].mean(0)  # less rounding
    velocities = velocities[part.atoms]
    change = velocities[receivers] - velocities[senders]
    with torch.enable_grad(), gradients_of("geometry"):
        vectors = part.edges.vectors.detach().requires_grad_(True)
        weights = vectors.new_ones(number, requires_grad=True)
        edges = Edges(vectors, senders, receivers)
        energies = central_energies(potential, graph.species[part.atoms], edges, part.counts)
        gradient = torch.autograd.grad(
            [(weights * energies).sum()], [vectors], create_graph=True, allow_unused=True
        )[0]
        if gradient is None:  # there are no edges
            return energies.detach(), vectors.new_zeros(3)
        (rates,) = torch.autograd.grad([(gradient * change).sum()], [weights])
    slopes = torch.zeros_like(positions).index_add(0, receivers, gradient.detach())
    slopes = slopes.index_add(0, senders, -gradient.detach())
    powers = (slopes * velocities).sum(1)
    return energies.detach(), rates @ positions[:number] - powers @ positions
