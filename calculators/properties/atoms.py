"""Helpers of all properties: copies with a calculator, pressure, velocities, distances."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from tesseral.data.cells import has_volume
from tesseral.data.neighbors import neighbor_list
from tesseral.data.units import covalent_radius

Floats = NDArray[np.float64]


def copy_atoms(atoms: Atoms) -> Atoms:
    """A copy that keeps using the same calculator."""
    copy: Atoms = atoms.copy()
    copy.calc = atoms.calc
    return copy


def supercell(atoms: Atoms, repeats: tuple[int, int, int]) -> Atoms:
    """Periodic repeats, with the same calculator."""
    large: Atoms = atoms.repeat(repeats)
    large.calc = atoms.calc
    return large


def repeats_for_length(atoms: Atoms, length: float) -> tuple[int, int, int]:
    """Repeats whose opposite faces are at least ``length`` Å apart."""
    heights = np.abs(atoms.get_volume() / _face_areas(atoms))
    a, b, c = (int(n) for n in np.maximum(1, np.ceil(length / heights - 1e-6)))
    return a, b, c


def repeats_for_atoms(atoms: Atoms, number: int) -> tuple[int, int, int]:
    """Repeats with at least so many atoms, always longer where the cell is thinnest."""
    heights = np.abs(atoms.get_volume() / _face_areas(atoms))
    repeats = np.ones(3, dtype=np.int64)
    while len(atoms) * repeats.prod() < number:
        repeats[int(np.argmin(np.round(heights * repeats, 6)))] += 1
    a, b, c = (int(n) for n in repeats)
    return a, b, c


def repeated(atoms: Atoms, number: int) -> Atoms:
    """A supercell of at least so many atoms, about as long as wide, with the same calculator."""
    return supercell(atoms, repeats_for_atoms(atoms, number))


def _face_areas(atoms: Atoms) -> Floats:
    """Area of the face that each lattice vector leads away from, (3,) Å²."""
    a, b, c = atoms.cell.array
    faces = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    areas: Floats = np.linalg.norm(faces, axis=1)
    return areas


def has_stress(atoms: Atoms) -> bool:
    """Whether the calculator can give a stress: periodic atoms in a cell with a volume."""
    return bool(atoms.pbc.any() and np.isfinite(atoms.cell.array).all()) and bool(
        has_volume(atoms.cell.array)
    )


def is_crystal(atoms: Atoms) -> bool:
    """Whether the atoms are periodic in three directions, in a cell with a volume."""
    return bool(atoms.pbc.all()) and has_stress(atoms)


def pressure_gpa(atoms: Atoms, ideal_gas: bool = False) -> float:
    """Pressure in GPa, that of the moving atoms too if asked; NaN without a periodic cell."""
    if not has_stress(atoms):
        return float("nan")
    stress = atoms.get_stress(include_ideal_gas=ideal_gas)
    return -float(stress[:3].mean()) / units.GPa


def largest_force(atoms: Atoms) -> float:
    """Length of the largest force, eV/Å."""
    return float(np.sqrt((atoms.get_forces() ** 2).sum(axis=1).max()))


def thermalize(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Random velocities of exactly this temperature in K, without drift of the whole."""
    masses = atoms.get_masses()[:, None]
    velocities = rng.normal(size=(len(atoms), 3)) / np.sqrt(masses)
    if len(atoms) > 1:
        velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    atoms.set_velocities(velocities)
    atoms.set_velocities(velocities * np.sqrt(temperature / atoms.get_temperature()))


def closest_approach(atoms: Atoms) -> float:
    """Smallest distance of two atoms as a fraction of the sum of their covalent radii.

    Looks as far as twice the largest covalent diameter; infinite where nothing is that close.
    """
    radii = np.array([covalent_radius(int(number)) for number in atoms.numbers])
    edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 4.0 * float(radii.max()))
    if len(edges.senders) == 0:
        return float("inf")
    vectors = (
        atoms.positions[edges.receivers]
        - atoms.positions[edges.senders]
        + edges.shifts @ atoms.cell.array
    )
    sums = radii[edges.receivers] + radii[edges.senders]
    return float((np.linalg.norm(vectors, axis=1) / sums).min())
