"""Forces and virial from per-atom energies; the only place that computes them.

Second derivatives are in ``hessian``, and the flow of energy in ``heat_flux``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tesseral.data.graph import AtomicGraph, Edges, counts_of, edges_of
from tesseral.potentials.engine import evaluate as engine
from tesseral.potentials.engine import training
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.engine.gpu.geometry import Lists, edge_lists
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import check_indices, check_vectors
from tesseral.potentials.ops.wanted_gradients import gradients_of
from tesseral.process import survive_forks


class Potential(Protocol):
    """Interface of all potentials; see ``MessagePassing``."""

    cutoff: float

    def __call__(self, species: Tensor, edges: Edges) -> Tensor:
        """Energies of the atoms, (N,) eV float64."""
        ...


class Prediction(NamedTuple):
    """Predictions of a potential for the G structures and N atoms of a graph."""

    energy: Tensor  # (G,)       eV, float64
    atomic_energies: Tensor  # (N,)       eV, float64, sum to the energy
    forces: Tensor  # (N, 3)     eV/Å, float64
    virial: Tensor  # (G, 3, 3)  eV, -dE/dε = -V · stress
    uncertainty: Tensor | None = None  # (N,) eV/Å, expected lengths of the force errors, if known


def forces_and_virial(
    energies: Tensor, edges: Edges, structure: Tensor, n_structures: int, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Derivatives of the summed energy with respect to positions and strain.

    Both follow from g = dE/d(vector) alone: an edge contributes +g to the force on its sender and
    -g to that on its receiver, and a strain ε changes its vector by ε · vector.

    Args:
        energies: (N,) eV, a function of the edge vectors.
        edges: edges whose vectors require grad.
        structure: (N,) index of the structure of each atom.
        n_structures: G, the number of structures.
        create_graph: keep the graph, so that a loss of the forces can be differentiated.

    Returns:
        forces (N, 3) eV/Å and virial (G, 3, 3) eV.
    """
    gradient = torch.autograd.grad(
        [energies.sum()], [edges.vectors], create_graph=create_graph, allow_unused=True
    )[0]
    if gradient is None:  # there are no edges
        gradient = torch.zeros_like(edges.vectors)
    return from_gradient(gradient, edges, structure, n_structures)


def from_gradient(
    gradient: Tensor, edges: Edges, structure: Tensor, n_structures: int
) -> tuple[Tensor, Tensor]:
    """Forces (N, 3) eV/Å and virial (G, 3, 3) eV from dE/d(vector), (E, 3) eV/Å."""
    vectors, senders, receivers = edges.vectors, edges.senders, edges.receivers
    forces = torch.zeros(structure.shape[0], 3, dtype=vectors.dtype, device=vectors.device)
    forces = forces.index_add(0, senders, gradient).index_add(0, receivers, -gradient)
    virial = torch.zeros(n_structures, 3, 3, dtype=vectors.dtype, device=vectors.device)
    per_edge = -vectors.unsqueeze(2) * gradient.unsqueeze(1)
    virial = virial.index_add(0, structure[receivers], per_edge)
    return forces, 0.5 * (virial + virial.transpose(1, 2))


def sum_by_structure(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Sums (G,) of per-atom values (N,) over the atoms of each structure."""
    total = torch.zeros(n_structures, dtype=values.dtype, device=values.device)
    return total.index_add(0, structure, values)


def sum_in_order(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Sums (G, …) of values (N, …) over the atoms of each structure, always the same to the bit.

    Args:
        values: (N, …).
        structure: (N,) index of the structure of each atom, sorted.
        n_structures: G, the number of structures.
    """
    if n_structures == 1:
        return values.sum(dim=0, keepdim=True)
    counts = counts_of(structure, n_structures)
    sums: Tensor = torch.segment_reduce(values, "sum", lengths=counts, unsafe=True)
    return sums


def stress_from_virial(virial: Tensor, cell: Tensor) -> Tensor:
    """Stress (G, 3, 3) eV/Å³, positive under tension; NaN without a cell."""
    volume = torch.linalg.det(cell).abs().view(-1, 1, 1)
    return torch.where(volume > 0, -virial / volume, torch.full_like(virial, float("nan")))


def predict(potential: Potential, graph: AtomicGraph, create_graph: bool = False) -> Prediction:
    """Energy, forces and virial of every structure of a graph.

    Args:
        potential: per-atom energy model.
        graph: positions and cell in float64.
        create_graph: keep the graph for training; otherwise the result is detached.
    """
    edges, n_structures = edges_of(graph), graph.cell.shape[0]
    return predict_edges(
        potential, graph.species, edges, graph.structure, n_structures, create_graph
    )


def predict_edges(
    potential: Potential,
    species: Tensor,
    edges: Edges,
    structure: Tensor,
    n_structures: int,
    create_graph: bool = False,
) -> Prediction:
    """Energy, forces and virial from edges, whose vectors are detached.

    Args:
        potential: per-atom energy model.
        species: (N,) index into the elements of the potential.
        edges: edges between the atoms.
        structure: (N,) index of the structure of each atom, sorted.
        n_structures: G, the number of structures.
        create_graph: keep the graph for training; otherwise the result is detached.

    Raises:
        ValueError: an array on the CPU has a wrong type, shape or index.
    """
    survive_forks()
    if isinstance(potential, MessagePassing) and species.is_cpu:
        _check(species, edges, structure, potential.n_species * potential.levels)
    if isinstance(potential, MessagePassing):
        if not create_graph and engine.applies(potential):
            return _sums(engine.evaluate(potential, species, edges), structure, n_structures)
        if create_graph and gpu.trains(potential):
            lists = edge_lists(edges, len(species))
            return _trained(potential, species, edges, lists, structure, n_structures)
    uncertainty = None
    with torch.enable_grad():
        if create_graph and isinstance(potential, MessagePassing) and training.applies(potential):
            energies, gradient = training.energies_and_gradient(potential, species, edges)
            forces, virial = from_gradient(gradient, edges, structure, n_structures)
        else:
            edges = edges._replace(vectors=edges.vectors.detach().requires_grad_(True))
            energies, uncertainty = _energies(potential, species, edges, create_graph)
            with gradients_of("geometry"):
                forces, virial = forces_and_virial(
                    energies, edges, structure, n_structures, create_graph
                )
        energy = sum_by_structure(energies, structure, n_structures)
    if create_graph:
        return Prediction(energy, energies, forces, virial)
    results = energy.detach(), energies.detach(), forces.detach(), virial.detach()
    return Prediction(*results, uncertainty)


def predict_padded(potential: MessagePassing, graph: AtomicGraph, counts: Tensor) -> Prediction:
    """Prediction for training on a GPU, from arrays with room for more atoms and edges.

    Args:
        potential: potential for which ``gpu.evaluate.trains`` is true.
        graph: positions and cell in float64; atoms beyond those of the structures have no edges.
        counts: (3,) int32, as in the lists of the kernels: numbers of rows of atoms and of edges.
    """
    edges, n_structures = edges_of(graph), graph.cell.shape[0]
    lists = edge_lists(edges, len(graph.species), counts)
    return _trained(potential, graph.species, edges, lists, graph.structure, n_structures)


def _trained(
    potential: MessagePassing,
    species: Tensor,
    edges: Edges,
    lists: Lists,
    structure: Tensor,
    n_structures: int,
) -> Prediction:
    """Prediction by the kernels for training on a GPU."""
    with torch.enable_grad():
        results = gpu.train(potential, species, edges.vectors, lists)
        return _sums(results, structure, n_structures)


def _energies(
    potential: Potential, species: Tensor, edges: Edges, training: bool
) -> tuple[Tensor, Tensor | None]:
    """Energies of the atoms and, except in training, their uncertainty if it is known."""
    if training or not isinstance(potential, MessagePassing) or potential.uncertainty is None:
        return potential(species, edges), None
    energies, features = potential.with_features(species, edges)
    with torch.no_grad():
        uncertainty: Tensor = potential.uncertainty(features, potential.elements_of(species))
    return energies, uncertainty


def _check(species: Tensor, edges: Edges, structure: Tensor, n_species: int) -> None:
    """Check the arrays, since compiled code would read and write beyond their ends."""
    atoms, n_edges = len(species), len(edges.vectors)
    check_vectors("vectors", edges.vectors, (n_edges, 3))
    check_indices("species", species, atoms, n_species)
    check_indices("senders", edges.senders, n_edges, atoms)
    check_indices("receivers", edges.receivers, n_edges, atoms)
    if structure.shape != species.shape:
        raise ValueError(f"structure must have the shape ({atoms},); found {structure.shape}")


def _sums(results: AtomicResults, structure: Tensor, n_structures: int) -> Prediction:
    """Prediction from results for atoms."""
    energies, forces, virials, uncertainty = results
    virials = 0.5 * (virials + virials.transpose(1, 2))
    if energies.is_cpu and n_structures > 1:
        virial = torch.zeros(n_structures, 3, 3, dtype=energies.dtype)
        virial = virial.index_add(0, structure, virials)
        energy = sum_by_structure(energies, structure, n_structures)
    else:  # on a GPU, index_add adds in any order
        both = torch.cat([energies.unsqueeze(1), virials.flatten(1)], dim=1)
        sums = sum_in_order(both, structure, n_structures)
        energy, virial = sums[:, 0], sums[:, 1:].reshape(n_structures, 3, 3)
    return Prediction(energy, energies, forces, virial, uncertainty)
