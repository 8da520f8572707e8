"""Labels that no atoms can have, whatever the method: they are in another unit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ase.data import covalent_radii
from ase.units import Bohr, Hartree

from tesseral.data.doctor.findings import Finding, count, make_finding
from tesseral.data.doctor.sample import Sample
from tesseral.data.neighbors import neighbor_list
from tesseral.data.structures import Structure
from tesseral.data.units import ENERGY_UNITS, EV_PER_A3_IN_GPA, FORCE_UNITS, STRESS_UNITS

THOMAS_FERMI = 0.7687 * Hartree  # eV; an atom has -0.7687 Ha · Z^(7/3) in Thomas-Fermi theory
MARGIN = 1.2  # relativity: that of the heaviest elements is up to 5% below Thomas-Fermi
COULOMB = Hartree * Bohr  # eV·Å, of two unit charges at 1 Å
ELECTRON_GAS = 0.2 * (3 * math.pi**2) ** (2 / 3) * Hartree * Bohr**2  # eV·Å²; P / n^(5/3)
REACH = 4.0  # Å, of the nearest neighbour of an atom with a force
UNITS: dict[str, Mapping[str, float]] = {
    "energy": ENERGY_UNITS,
    "forces": FORCE_UNITS,
    "stress": STRESS_UNITS,
}
SHOWN = {"energy": (1.0, "eV/atom"), "forces": (1.0, "eV/Å"), "stress": (EV_PER_A3_IN_GPA, "GPa")}
BOUNDS = {
    "energy": "more than all electrons of the atoms are bound by",
    "forces": "more than their bare nuclei repel each other",
    "stress": "more than the pressure of all their electrons as a gas",
}


def energy_bound(structure: Structure) -> float:
    """Largest energy (eV) that the atoms can have with all their electrons, as a magnitude.

    The total energy of an atom in Thomas-Fermi theory (E. H. Lieb and B. Simon, Adv. Math. 23, 22
    (1977)), which lies below the exact one except for the relativity of the heaviest elements.
    """
    return float(MARGIN * THOMAS_FERMI * (structure.numbers ** (7 / 3)).sum())


def stress_bound(structure: Structure) -> float:
    """Largest component of the stress (eV/Å³) of cold matter of this density; NaN without a volume.

    The pressure of a gas of all electrons in the volume of the atoms, without their attraction to
    the nuclei: that of the cell, or of spheres with the covalent radii if the cell has vacuum.
    """
    if not structure.pbc.all():
        return math.nan
    cell = abs(float(np.linalg.det(structure.cell)))
    spheres = 4 / 3 * math.pi * float((covalent_radii[structure.numbers] ** 3).sum())
    volume = min(cell, spheres)
    density = float(structure.numbers.sum()) / volume
    return float(ELECTRON_GAS * density ** (5 / 3) * volume / cell)


def forces_excess(structure: Structure) -> float:
    """Largest force over the Coulomb force between the bare nuclei of neighbours.

    Atoms without a neighbour within `REACH` are left out. It is 0 if the forces are possible at any
    distance up to that.
    """
    size = np.linalg.norm(structure.forces, axis=1)
    least = COULOMB * structure.numbers * structure.numbers.min() / REACH**2
    if not (size > least).any():
        return 0.0
    near = neighbor_list(structure.positions, structure.cell, structure.pbc, REACH)
    points, numbers = structure.positions, structure.numbers.astype(np.float64)
    vectors = points[near.receivers] - points[near.senders] + near.shifts @ structure.cell
    square = np.maximum(np.einsum("ex,ex->e", vectors, vectors), 1e-12)
    contact = COULOMB * numbers[near.senders] * numbers[near.receivers] / square
    largest = np.zeros(len(size))
    np.maximum.at(largest, near.receivers, contact)
    known = np.isfinite(size) & (largest > 0)
    return float((size[known] / largest[known]).max()) if known.any() else 0.0


def energy_excess(structure: Structure) -> float:
    """Energy over its bound; 0 without an energy."""
    return float(np.nan_to_num(abs(structure.energy) / energy_bound(structure)))


def stress_excess(structure: Structure) -> float:
    """Largest component of the stress over its bound; 0 without."""
    largest = float(np.abs(structure.stress).max())
    return float(np.nan_to_num(largest / stress_bound(structure)))


def check_possible(sample: Sample) -> list[Finding]:
    """Find labels beyond what any atoms have, and guess their unit."""
    findings = []
    for label, excess in (
        ("energy", energy_excess),
        ("forces", forces_excess),
        ("stress", stress_excess),
    ):
        ratios = np.array([excess(structure) for structure in sample.structures])
        wrong = ratios > 1
        if not wrong.any():
            continue
        worst = int(ratios.argmax())
        factor, unit = SHOWN[label]
        findings.append(
            make_finding(
                "error",
                "impossible labels",
                sample.rows[wrong],
                f"{label} of {count(int(wrong.sum()))} beyond what any atoms have: "
                f"{factor * _size(sample.structures[worst], label):.3g} {unit}, {BOUNDS[label]}"
                f"{guess(label, float(ratios[worst]))}",
                f"import again with `{label}_unit`, or take these structures out",
            )
        )
    return findings


def guess(label: str, excess: float) -> str:
    """Units in which the label is possible, as a part of a sentence; empty if there is none.

    Args:
        label: energy, forces or stress.
        excess: label over its bound.
    """
    sizes: dict[float, str] = {}
    for unit, size in UNITS[label].items():
        if size * excess <= 1:
            sizes.setdefault(size, unit)
    names = [sizes[size] for size in sorted(sizes, reverse=True)]
    return f"; the unit is perhaps {' or '.join(names)}" if names else ""


def _size(structure: Structure, label: str) -> float:
    """Magnitude of the largest label of a structure; the energy is that of an atom."""
    if label == "energy":
        return abs(structure.energy) / len(structure.numbers)
    values = np.linalg.norm(structure.forces, axis=1) if label == "forces" else structure.stress
    return float(np.nanmax(np.abs(values)))
