"""Helper functions: copies with a calculator, supercells, pressure, velocities, distances."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import spglib
from ase import Atoms, units
from ase.calculators.calculator import all_changes
from numpy.typing import NDArray

from tesseral.data.cells import has_volume
from tesseral.data.neighbors import neighbor_list
from tesseral.data.units import covalent_radius

Floats = NDArray[np.float64]

SYMPREC = 0.01  # Å, tolerance of the search for symmetries
VACUUM = 6.0  # Å; an empty layer of this width is not part of a crystal


def copy_atoms(atoms: Atoms) -> Atoms:
    """A copy with the same calculator."""
    copy: Atoms = atoms.copy()
    copy.calc = atoms.calc
    return copy


def changes(one: Atoms | None, other: Atoms) -> list[str]:
    """Names of the arrays that differ, which matter to potentials; all if there is no first one.

    ASE's calculators ask several times in a step, and its own comparison takes as long as the
    energies and forces of two atoms.
    """
    if one is None:
        return list(all_changes)
    pairs = {
        "positions": (one.positions, other.positions),
        "numbers": (one.numbers, other.numbers),
        "cell": (one.cell.array, other.cell.array),
        "pbc": (one.pbc, other.pbc),
    }
    return [name for name, (a, b) in pairs.items() if a.shape != b.shape or not (a == b).all()]


def supercell(atoms: Atoms, repeats: tuple[int, int, int]) -> Atoms:
    """A supercell with the same calculator."""
    large: Atoms = atoms.repeat(repeats)
    large.calc = atoms.calc
    return large


def repeats_for_length(atoms: Atoms, length: float) -> tuple[int, int, int]:
    """Repetitions for which opposite faces of the cell are at least ``length`` Å apart."""
    heights = np.abs(atoms.get_volume() / _face_areas(atoms))
    a, b, c = (int(n) for n in np.maximum(1, np.ceil(length / heights - 1e-6)))
    return a, b, c


def repeats_for_atoms(atoms: Atoms, number: int) -> tuple[int, int, int]:
    """Repetitions that give at least this many atoms, extended where the cell is thinnest."""
    heights = np.abs(atoms.get_volume() / _face_areas(atoms))
    repeats = np.ones(3, dtype=np.int64)
    while len(atoms) * repeats.prod() < number:
        repeats[int(np.argmin(np.round(heights * repeats, 6)))] += 1
    a, b, c = (int(n) for n in repeats)
    return a, b, c


def repeated(atoms: Atoms, number: int) -> Atoms:
    """A supercell with at least this many atoms, similar edges, and the same calculator."""
    return supercell(atoms, repeats_for_atoms(atoms, number))


def _face_areas(atoms: Atoms) -> Floats:
    """Areas (3,) Å² of the faces spanned by the other two lattice vectors."""
    return _face_areas_of(atoms.cell.array)


def _face_areas_of(cell: Floats) -> Floats:
    """Areas (3,) Å² of the faces of a cell."""
    a, b, c = cell
    faces = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    areas: Floats = np.linalg.norm(faces, axis=1)
    return areas


def has_stress(atoms: Atoms) -> bool:
    """Whether the stress is defined: periodic atoms in a cell with a volume."""
    return bool(atoms.pbc.any() and np.isfinite(atoms.cell.array).all()) and bool(
        has_volume(atoms.cell.array)
    )


def is_crystal(atoms: Atoms) -> bool:
    """Whether the atoms are periodic in three directions, in a cell with a volume."""
    return bool(atoms.pbc.all()) and has_stress(atoms)


def vacuum_gaps(atoms: Atoms) -> Floats:
    """Widths of the empty layers across each periodic direction, (3,) Å; 0 without a cell.

    The width is the largest distance between neighbouring atoms along the normal of the plane of
    the other two lattice vectors: 3.4 Å in graphite, usually 10 Å or more around a slab.
    """
    gaps = np.zeros(3)
    if not has_stress(atoms) or len(atoms) == 0:
        return gaps
    cell = atoms.cell.complete()
    heights = abs(cell.volume) / _face_areas_of(cell.array)
    places = np.sort(cell.scaled_positions(atoms.positions) % 1.0, axis=0)
    spacings = np.diff(places, axis=0, append=places[:1] + 1.0)
    widths: Floats = np.where(atoms.pbc, spacings.max(axis=0) * heights, 0.0)
    return widths


def empty_directions(atoms: Atoms) -> list[bool]:
    """Whether each periodic lattice vector crosses a layer of vacuum.

    Such a vector is not a property of the material.
    """
    return [bool(width > VACUUM) for width in vacuum_gaps(atoms)]


def is_bulk(atoms: Atoms) -> bool:
    """Whether the atoms are periodic in three directions without vacuum.

    Only then are volume, pressure and space group properties of the material.
    """
    return is_crystal(atoms) and not any(empty_directions(atoms))


def space_group(atoms: Atoms) -> str:
    """Symbol and number of the space group, such as ``Fd-3m (227)``; empty if none is found."""
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        with quiet_spglib():
            found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
    except Exception:  # versions of spglib report in different ways that they found nothing
        return ""
    return f"{found.international} ({found.number})" if found is not None else ""


@contextmanager
def quiet_spglib() -> Iterator[None]:
    """Call spglib without its warning about a new way to report errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def pressure_gpa(atoms: Atoms, ideal_gas: bool = False) -> float:
    """Pressure in GPa, on request with the kinetic part; NaN without a periodic cell."""
    if not has_stress(atoms):
        return float("nan")
    stress = atoms.get_stress(include_ideal_gas=ideal_gas)
    return -float(stress[:3].mean()) / units.GPa


def largest_force(atoms: Atoms) -> float:
    """Norm of the largest force, eV/Å."""
    return float(np.sqrt((atoms.get_forces() ** 2).sum(axis=1).max()))


def thermalize(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Set random velocities with exactly this temperature (K) and no total momentum."""
    masses = atoms.get_masses()[:, None]
    velocities = rng.normal(size=(len(atoms), 3)) / np.sqrt(masses)
    if len(atoms) > 1:
        velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    atoms.set_velocities(velocities)
    atoms.set_velocities(velocities * np.sqrt(temperature / atoms.get_temperature()))


def closest_approach(atoms: Atoms) -> float:
    """Smallest distance of two atoms as a fraction of the sum of their covalent radii.

    Searches up to twice the largest covalent diameter; infinite if no pair is that close.
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
