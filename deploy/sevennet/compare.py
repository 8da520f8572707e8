"""How far a converted model is from the original, on crystals of all its elements."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from ase.units import GPa

from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.card import ModelCard
from tesseral.potentials.derivatives import predict, stress_from_virial
from tesseral.potentials.message_passing import MessagePassing


class Deviation(NamedTuple):
    """Largest differences."""

    energy: float  # meV/atom
    forces: float  # meV/Å, of a component
    stress: float  # GPa, of a component
    relative: float  # RMS of the forces' differences by that of the forces


def compare(
    potential: MessagePassing,
    card: ModelCard,
    checkpoint: Path,
    modality: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deviation:
    """Compute the same crystals with a converted model and with SevenNet's own calculator.

    Args:
        potential: converted, on the CPU.
        card: of it.
        checkpoint: what it was converted from.
        modality: level of theory that was kept.
        progress: called with how many crystals are done, of how many.
    """
    module = importlib.import_module("sevenn.calculator")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {} if modality is None else {"modal": modality}
        theirs = module.SevenNetCalculator(str(checkpoint), device="cpu", **settings)
    crystals = rocksalts(card.elements)
    differences = []
    for done, atoms in enumerate(crystals):
        energy, forces, stress = _ours(potential, card, atoms)
        atoms.calc = theirs
        reference = atoms.get_forces()
        differences.append(
            (
                abs(energy - atoms.get_potential_energy()) / len(atoms),
                np.abs(forces - reference).max(),
                np.abs(stress - atoms.get_stress(voigt=False)).max(),
                np.square(forces - reference).sum(),
                np.square(reference).sum(),
            )
        )
        progress(done + 1, len(crystals))
    table = np.array(differences)
    energy, force, stress = table[:, :3].max(axis=0)
    relative = (table[:, 3].sum() / table[:, 4].sum()) ** 0.5
    return Deviation(1e3 * energy, 1e3 * force, stress / GPa, float(relative))


def rocksalts(elements: tuple[int, ...]) -> list[Atoms]:
    """Crystals of two elements each, in which every element is found, slightly out of place."""
    rng = np.random.default_rng(0)
    order = rng.permutation(elements)
    crystals = []
    for first, second in zip(order[::2], np.roll(order, -1)[::2], strict=True):
        side = 2.1 * (covalent_radii[first] + covalent_radii[second])
        atoms = bulk("NaCl", "rocksalt", a=side, cubic=True)
        atoms.numbers = np.where(atoms.numbers == 11, first, second)
        atoms.rattle(0.1, rng=rng)
        crystals.append(atoms)
    return crystals


def _ours(potential: MessagePassing, card: ModelCard, atoms: Atoms) -> tuple[float, Any, Any]:
    """Energy in eV, forces in eV/Å and stress in eV/Å³."""
    graph = atomic_graph(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        card.elements,
        card.config.cutoff,
    )
    answer = predict(potential, graph)
    stress = stress_from_virial(answer.virial, graph.cell)[0]
    return (
        float(answer.energy[0]),
        answer.forces.detach().numpy(),
        stress.detach().numpy().astype(np.float64),
    )
