"""Probe of a model file: a small cluster with its results, recomputed at each load."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

import torch
from torch import Tensor

from tesseral.data.graph import AtomicGraph
from tesseral.data.units import covalent_radius
from tesseral.deploy.card import ModelCard
from tesseral.files import json_text
from tesseral.potentials.blocks.short_range import square_pairs
from tesseral.potentials.derivatives import Potential, predict

MAX_ATOMS = 24  # enough for every pair of elements of common models, and cheap

# Largest allowed deviation of an atom's energy and force, in units of the model's energy scale plus
# the atom's own energy (without E0) and force. Rounding in float32 gives about 1e-6, TF32 on a GPU
# about 1e-3; a wrong path, table or convention gives a deviation of order one.
TOLERANCE = {"float32": 1e-2, "float64": 1e-7}


class Probe(NamedTuple):
    """Atomic energies and forces of a small cluster."""

    species: Tensor  # (N,)
    positions: Tensor  # (N, 3)  Å
    energies: Tensor  # (N,)    eV
    forces: Tensor  # (N, 3)  eV/Å


def make_probe(potential: Potential, card: ModelCard, device: torch.device) -> Probe:
    """Energies and forces of a cluster of all elements (the first 24 if there are more).

    The first two atoms are closer than their covalent radii and than their inner radius, so that a
    short-range repulsion contributes.
    """
    n_atoms = min(max(8, len(card.elements)), MAX_ATOMS)
    species = torch.arange(n_atoms) % len(card.elements)
    # Points of a sunflower on growing spheres: irregular, dense within the cutoff, none too close.
    count = torch.arange(n_atoms, dtype=torch.float64) + 0.5
    height = 1 - 2 * count / n_atoms
    angle = math.pi * (1 + 5**0.5) * count
    ring = (1 - height * height).sqrt()
    direction = torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)
    radius = 0.5 * card.config.cutoff * (n_atoms / 8) ** (1 / 3) * (count / n_atoms) ** (1 / 3)
    positions = direction * radius.unsqueeze(1)
    bond = sum(covalent_radius(card.elements[int(index)]) for index in species[:2])
    distance = 0.7 * bond
    if card.inner_radii:
        inner = square_pairs(card.inner_radii, len(card.elements))
        distance = min(distance, 0.96 * float(inner[species[0], species[1]]))
    first = positions[0] - positions[1]
    positions[0] = positions[1] + first * (distance / float(first.norm()))
    positions = positions.round(decimals=4)
    energies, forces = _answer(potential, card.config.cutoff, species, positions, device)
    return Probe(species, positions, energies, forces)


def probe_deviation(
    potential: Potential, card: ModelCard, probe: Probe, device: torch.device
) -> float:
    """Largest relative deviation from the stored results, in the units of ``TOLERANCE``."""
    energies, forces = _answer(
        potential, card.config.cutoff, probe.species, probe.positions, device
    )
    return relative_deviation(card, probe, energies, forces)


def relative_deviation(card: ModelCard, probe: Probe, energies: Tensor, forces: Tensor) -> float:
    """Largest relative deviation of given energies (N,) eV and forces (N, 3) eV/Å."""
    off = torch.maximum((energies - probe.energies).abs(), (forces - probe.forces).norm(dim=1))
    worst = float((off / probe_scale(card, probe)).max())
    return worst if math.isfinite(worst) else math.inf


def probe_scale(card: ModelCard, probe: Probe) -> Tensor:
    """Scale of the deviations of each atom, (N,) eV or eV/Å; see ``TOLERANCE``."""
    reference = torch.tensor(card.reference_energies, dtype=torch.float64)[probe.species]
    own: Tensor = (probe.energies - reference).abs() + probe.forces.norm(dim=1)
    return card.energy_scale + own


def probe_to_json(probe: Probe) -> str:
    """Probe as strict JSON."""
    content = {name: value.tolist() for name, value in probe._asdict().items()}
    return json_text(content, finite=True, name="probe")


def probe_from_json(text: str) -> Probe:
    """Read a probe that ``probe_to_json`` wrote.

    Raises:
        ValueError: the text is not a probe.
    """
    try:
        content = json.loads(text)
        probe = Probe(
            torch.tensor(content["species"], dtype=torch.int64),
            *(torch.tensor(content[name], dtype=torch.float64) for name in Probe._fields[1:]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"the stored probe cannot be read ({error})") from None
    n_atoms = probe.species.shape[0] if probe.species.ndim == 1 else 0
    if not 0 < n_atoms <= MAX_ATOMS or probe.energies.shape != (n_atoms,):
        raise ValueError(f"the stored probe must have 1 to {MAX_ATOMS} atoms")
    if probe.positions.shape != (n_atoms, 3) or probe.forces.shape != (n_atoms, 3):
        raise ValueError("the stored probe has arrays of the wrong shape")
    return probe


def _cluster_edges(positions: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    near = torch.cdist(positions, positions) < cutoff
    near.fill_diagonal_(False)
    receivers, senders = near.nonzero(as_tuple=True)
    return senders, receivers


def _answer(
    potential: Potential, cutoff: float, species: Tensor, positions: Tensor, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Atomic energies (N,) and forces (N, 3) of a cluster, on the CPU."""
    senders, receivers = _cluster_edges(positions, cutoff)
    graph = AtomicGraph(
        positions=positions,
        species=species,
        structure=torch.zeros_like(species),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        senders=senders,
        receivers=receivers,
        shifts=torch.zeros(senders.shape[0], 3, dtype=torch.float64),
    )
    answer = predict(potential, AtomicGraph(*(part.to(device) for part in graph)))
    return answer.atomic_energies.cpu(), answer.forces.cpu()
