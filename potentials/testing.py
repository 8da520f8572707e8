"""Physics tests: measures of how well a potential obeys the laws that it claims.

Every function takes a potential and a graph and returns the largest violation in eV, eV/Å or
eV/Å³. The tests of each architecture compare them with thresholds, and reports print them.
"""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from tesseral.data.graph import AtomicGraph, edges_of, join_graphs
from tesseral.potentials.derivatives import (
    Potential,
    Prediction,
    predict,
    stress_from_virial,
)
from tesseral.potentials.hessian import dense, hessian_rows
from tesseral.potentials.message_passing import MessagePassing


def transformed(graph: AtomicGraph, matrix: Tensor) -> AtomicGraph:
    """The graph with positions and cell rotated (or mirrored) by an orthogonal matrix (3, 3)."""
    return graph._replace(positions=graph.positions @ matrix.T, cell=graph.cell @ matrix.T)


def strained(graph: AtomicGraph, strain: Tensor) -> AtomicGraph:
    """The graph with all lengths changed by a strain tensor (3, 3)."""
    return transformed(graph, torch.eye(3, dtype=torch.float64) + strain)


def permuted(graph: AtomicGraph, order: Tensor) -> AtomicGraph:
    """The graph of one structure with its atoms in another order (N,)."""
    place = torch.empty_like(order)
    place[order] = torch.arange(order.shape[0])
    senders, receivers = place[graph.senders], place[graph.receivers]
    edges = torch.argsort(receivers, stable=True)
    return graph._replace(
        positions=graph.positions[order],
        species=graph.species[order],
        senders=senders[edges],
        receivers=receivers[edges],
        shifts=graph.shifts[edges],
    )


def dimer(first: int, second: int, distance: float) -> AtomicGraph:
    """Two atoms in vacuum, of the given species, ``distance`` Å apart along a skew direction."""
    direction = torch.tensor([0.48, -0.64, 0.6], dtype=torch.float64)
    return AtomicGraph(
        positions=torch.stack([torch.zeros(3, dtype=torch.float64), direction * distance]),
        species=torch.tensor([first, second]),
        structure=torch.zeros(2, dtype=torch.int64),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        senders=torch.tensor([1, 0]),
        receivers=torch.tensor([0, 1]),
        shifts=torch.zeros(2, 3, dtype=torch.float64),
    )


def isolated_atom(species: int) -> AtomicGraph:
    """One atom in vacuum."""
    none = torch.zeros(0, dtype=torch.int64)
    return AtomicGraph(
        positions=torch.zeros(1, 3, dtype=torch.float64),
        species=torch.tensor([species]),
        structure=torch.zeros(1, dtype=torch.int64),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        senders=none,
        receivers=none,
        shifts=torch.zeros(0, 3, dtype=torch.float64),
    )


def random_rotations(number: int, seed: int = 0) -> Tensor:
    """Uniformly random rotation matrices (number, 3, 3), float64."""
    generator = torch.Generator().manual_seed(seed)
    quaternions = torch.randn(number, 4, generator=generator, dtype=torch.float64)
    quaternions = quaternions / quaternions.norm(dim=1, keepdim=True)
    matrices: Tensor = o3.quaternion_to_matrix(quaternions)
    return matrices


def orthogonal_errors(
    potential: Potential, graph: AtomicGraph, matrices: Tensor
) -> tuple[float, float, float]:
    """Deviations of energy, forces and virial from exact rotation with the structure.

    Args:
        potential: the potential.
        graph: one or more structures.
        matrices: (R, 3, 3) rotations or reflections.

    Returns:
        RMS change of the energy per atom (eV), the forces (eV/Å) and the virial per atom (eV).
    """
    reference = predict(potential, graph)
    n_atoms = graph.positions.shape[0]
    energy, forces, virial = [], [], []
    for matrix in matrices:
        turned = predict(potential, transformed(graph, matrix))
        energy.append((turned.energy - reference.energy) / n_atoms)
        forces.append(turned.forces - reference.forces @ matrix.T)
        virial.append((turned.virial - matrix @ reference.virial @ matrix.T) / n_atoms)
    return _rms(energy), _rms(forces), _rms(virial)


def _rms(parts: list[Tensor]) -> float:
    return float(torch.stack(parts).square().mean().sqrt())


def rotation_errors(
    potential: Potential, graph: AtomicGraph, number: int = 8
) -> tuple[float, float, float]:
    """``orthogonal_errors`` over random rotations."""
    return orthogonal_errors(potential, graph, random_rotations(number))


def reflection_errors(
    potential: Potential, graph: AtomicGraph, number: int = 8
) -> tuple[float, float, float]:
    """``orthogonal_errors`` over random rotations followed by inversion."""
    return orthogonal_errors(potential, graph, -random_rotations(number, seed=1))


def translation_error(potential: Potential, graph: AtomicGraph) -> float:
    """Largest force change (eV/Å) when all atoms move together by a few Å."""
    offset = torch.tensor([1.7, -2.3, 3.1], dtype=torch.float64)
    moved = predict(potential, graph._replace(positions=graph.positions + offset))
    return _largest(moved.forces - predict(potential, graph).forces)


def permutation_error(potential: Potential, graph: AtomicGraph) -> float:
    """Largest force change (eV/Å) when the atoms of one structure are renumbered."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(graph.positions.shape[0], generator=generator)
    other = predict(potential, permuted(graph, order)).forces
    return _largest(other - predict(potential, graph).forces[order])


def batching_error(potential: Potential, graphs: list[AtomicGraph]) -> tuple[float, float]:
    """Largest change of energy (eV/atom) and forces (eV/Å) when structures share a batch."""
    single = [predict(potential, graph) for graph in graphs]
    batch = predict(potential, join_graphs(graphs))
    sizes = torch.tensor([graph.positions.shape[0] for graph in graphs])
    energy = (batch.energy - torch.cat([p.energy for p in single])) / sizes
    return _largest(energy), _largest(batch.forces - torch.cat([p.forces for p in single]))


def net_force(potential: Potential, graph: AtomicGraph) -> float:
    """Size of the summed force (eV/Å) on one structure; zero by translation symmetry."""
    return float(predict(potential, graph).forces.sum(0).norm())


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def force_error(potential: Potential, graph: AtomicGraph, step: float = 1e-4) -> float:
    """Largest difference (eV/Å) between forces and central differences of the energy."""
    forces = predict(potential, graph).forces
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(6):
        direction = torch.randn(forces.shape, generator=generator, dtype=torch.float64)
        direction = direction / direction.norm()
        energies = [
            predict(potential, graph._replace(positions=graph.positions + sign * step * direction))
            for sign in (1.0, -1.0)
        ]
        slope = _total(energies[0]) - _total(energies[1])
        worst = max(worst, abs(slope / (2 * step) + float((forces * direction).sum())))
    return worst


def _total(prediction: Prediction) -> float:
    return float(prediction.energy.sum())


def stress_error(potential: Potential, graph: AtomicGraph, step: float = 1e-5) -> float:
    """Largest difference (eV/Å³) between the stress and central differences of the energy.

    This includes the sign: the stress is positive if stretching costs energy.
    """
    stress = stress_from_virial(predict(potential, graph).virial, graph.cell)[0]
    volume = float(torch.linalg.det(graph.cell[0]).abs())
    worst = 0.0
    for i in range(3):
        for j in range(i + 1):
            strain = torch.zeros(3, 3, dtype=torch.float64)
            strain[i, j] += 0.5 * step
            strain[j, i] += 0.5 * step
            rise = _total(predict(potential, strained(graph, strain))) - _total(
                predict(potential, strained(graph, -strain))
            )
            worst = max(worst, abs(rise / (2 * step) / volume - float(stress[i, j])))
    return worst


def hessian(potential: MessagePassing, graph: AtomicGraph) -> Tensor:
    """Second derivatives of the energy of one structure, (3N, 3N) eV/Å²."""
    atoms = len(graph.positions)
    rows = hessian_rows(potential, graph.species, edges_of(graph), range(atoms))
    return torch.from_numpy(dense(rows, atoms, atoms))


def hessian_error(potential: MessagePassing, graph: AtomicGraph, step: float = 1e-5) -> float:
    """Largest difference (eV/Å²) between the Hessian and central differences of the forces."""
    worst = 0.0
    for number, row in enumerate(hessian(potential, graph)):
        move = torch.zeros_like(graph.positions)
        move.view(-1)[number] = step
        sides = [
            predict(potential, graph._replace(positions=graph.positions + sign * move)).forces
            for sign in (-1.0, 1.0)
        ]
        worst = max(worst, _largest((sides[0] - sides[1]).flatten() / (2 * step) - row))
    return worst


def compression_growth(potential: Potential, graph: AtomicGraph, factor: float = 0.9) -> float:
    """RMS force after all lengths are multiplied by ``factor``, over that before.

    Products of many neighbours grow fast where atoms come closer. Tens are usual; at hundreds,
    simulations fail in cells that are a little denser than those of the training.
    """
    squeezed = strained(graph, (factor - 1.0) * torch.eye(3, dtype=torch.float64))
    before, after = (predict(potential, one).forces.square().mean() for one in (graph, squeezed))
    return float((after / before).sqrt())


def cutoff_jumps(potential: Potential, species: tuple[int, int]) -> tuple[float, float, float]:
    """Energy (eV), force (eV/Å) and force constant (eV/Å²) of a dimer just inside the cutoff.

    All three must vanish there; they are measured 1e-3 Å inside, relative to free atoms.
    """
    inside = potential.cutoff - 1e-3
    near = predict(potential, dimer(*species, inside))
    nearer = predict(potential, dimer(*species, inside - 1e-4))
    alone = sum(_total(predict(potential, isolated_atom(kind))) for kind in species)
    curvature = (near.forces - nearer.forces).norm() / 1e-4
    return abs(_total(near) - alone), float(near.forces.norm()), float(curvature)


def physics_report(
    potential: Potential, graph: AtomicGraph, step: float = 1e-4
) -> dict[str, float]:
    """All checks that need only one periodic structure, by name, in eV, eV/Å and eV/Å³.

    Args:
        potential: the potential.
        graph: one periodic structure.
        step: step of the finite differences in Å and in strain; about 1e-2 for a float32 potential.
    """
    rotation = rotation_errors(potential, graph)
    reflection = reflection_errors(potential, graph)
    return {
        "rotation: energy per atom": rotation[0],
        "rotation: forces": rotation[1],
        "rotation: virial per atom": rotation[2],
        "reflection: energy per atom": reflection[0],
        "reflection: forces": reflection[1],
        "translation: forces": translation_error(potential, graph),
        "permutation: forces": permutation_error(potential, graph),
        "net force": net_force(potential, graph),
        "forces against finite differences": force_error(potential, graph, step),
        "stress against finite differences": stress_error(potential, graph, 0.1 * step),
    }
