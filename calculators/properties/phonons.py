"""Phonons of a crystal, with phonopy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from numpy.typing import ArrayLike, NDArray

from tesseral.calculators.properties.atoms import is_crystal, repeats_for_length
from tesseral.calculators.properties.hessian import hessian

Floats = NDArray[np.float64]

EV_IN_KJ_MOL = units.mol / units.kJ  # kJ/mol in one eV per particle


class Bands(NamedTuple):
    """Frequencies along a path of Q points, K of them labelled."""

    qpoints: Floats  # (Q, 3) in units of the reciprocal lattice vectors
    distances: Floats  # (Q,) 1/Å along the path
    frequencies: Floats  # (Q, 3n) THz; negative if the mode is unstable
    ticks: Floats  # (K,) 1/Å
    labels: tuple[str, ...]  # (K,)


class ForceConstants(NamedTuple):
    """Force constants of a crystal as a phonopy model."""

    model: Any  # phonopy.Phonopy with force constants
    cell: Any  # ase.cell.Cell of the primitive cell
    repeats: tuple[int, int, int]
    n_atoms: int  # number of atoms of the supercell
    n_displacements: int  # 0 with the Hessian


class Thermal(NamedTuple):
    """Harmonic thermal properties; unstable modes are left out."""

    zero_point_energy: float  # meV/atom
    heat_capacity: float  # J/K/mol of atoms, at constant volume
    entropy: float  # J/K/mol of atoms


def force_constants(
    atoms: Atoms, *, length: float = 10.0, displacement: float | None = 0.01
) -> ForceConstants:
    """Force constants in a supercell.

    Args:
        atoms: relaxed primitive cell with a calculator; not changed.
        length: minimum distance (Å) between opposite faces of the supercell.
        displacement: displacement (Å) of an atom; those that symmetry makes equal are left out.
            None for the Hessian of the supercell, of the atoms of one primitive cell (see
            ``hessian``).

    Raises:
        ValueError: the atoms are not periodic in three directions.
    """
    from phonopy import Phonopy  # imported here because it is slow
    from phonopy.structure.atoms import PhonopyAtoms

    if not is_crystal(atoms):
        raise ValueError(f"phonons need a crystal; pbc is {atoms.pbc.tolist()}")
    repeats = repeats_for_length(atoms, length)
    unit = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
    )
    model = Phonopy(unit, np.diag(repeats), primitive_matrix=np.eye(3), log_level=0)
    if displacement is None:
        large = _with_calculator(model.supercell, atoms)
        rows = hessian(large, model.primitive.p2s_map.tolist())
        model.force_constants = rows.reshape(len(atoms), 3, -1, 3).swapaxes(1, 2).copy()
    else:
        model.generate_displacements(distance=displacement)
        moved = model.supercells_with_displacements or ()
        model.forces = np.array([_with_calculator(cell, atoms).get_forces() for cell in moved])
        model.produce_force_constants()
    model.symmetrize_force_constants()
    number = 0 if displacement is None else len(model.forces)
    return ForceConstants(model, atoms.cell.copy(), repeats, len(model.supercell), number)


def _with_calculator(cell: Any, atoms: Atoms) -> Atoms:
    """A supercell of phonopy as ASE's atoms, with the calculator of ``atoms``."""
    made = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
    made.calc = atoms.calc
    return made


def frequencies(constants: ForceConstants, qpoints: ArrayLike) -> Floats:
    """Frequencies (Q, 3n) THz, ascending, at q points (Q, 3) in reciprocal lattice units."""
    constants.model.run_qpoints(np.asarray(qpoints, dtype=np.float64).reshape(-1, 3))
    found: Floats = np.asarray(constants.model.qpoints.frequencies)
    return found


def bands(constants: ForceConstants, points: int = 160) -> Bands:
    """Frequencies along the standard path of the lattice (Setyawan and Curtarolo 2010)."""
    path = constants.cell.bandpath(npoints=points)
    distances, ticks, labels = path.get_linear_kpoint_axis()
    return Bands(
        qpoints=np.asarray(path.kpts),
        distances=np.asarray(distances),
        frequencies=frequencies(constants, path.kpts),
        ticks=np.asarray(ticks),
        labels=tuple(labels),
    )


def thermal_properties(
    constants: ForceConstants, temperature: float = 300.0, mesh: int = 12
) -> Thermal:
    """Harmonic thermal properties on a grid of mesh³ q points.

    Args:
        constants: force constants.
        temperature: temperature (K).
        mesh: q points along each reciprocal lattice vector.
    """
    model = constants.model
    model.run_mesh([mesh] * 3)
    model.run_thermal_properties(temperatures=[temperature])
    found = model.thermal_properties
    n_atoms = len(model.primitive)
    return Thermal(
        zero_point_energy=1000 * float(found.zero_point_energy) / EV_IN_KJ_MOL / n_atoms,
        heat_capacity=float(np.ravel(found.heat_capacity)[0]) / n_atoms,
        entropy=float(np.ravel(found.entropy)[0]) / n_atoms,
    )


def lowest_frequency(constants: ForceConstants, mesh: int = 8) -> float:
    """Lowest frequency (THz) on a grid of mesh³ q points that contains Γ."""
    axis = np.arange(mesh) / mesh
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return float(frequencies(constants, grid).min())


def commensurate_points(primitive: ArrayLike, larger: ArrayLike) -> Floats:
    """The q points that fold to Γ of a larger cell of the same crystal.

    Args:
        primitive: (3, 3) Å, rows are lattice vectors.
        larger: (3, 3) Å, integer combinations of them.

    Returns:
        (n, 3) in reciprocal lattice units of the primitive cell, for n primitive cells in the
        larger one.
    """
    multiples = np.rint(np.asarray(larger) @ np.linalg.inv(np.asarray(primitive)))
    number = round(abs(float(np.linalg.det(multiples))))
    axis = np.arange(number)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    found = np.round((grid @ np.linalg.inv(multiples).T) % 1.0, 9) % 1.0
    points: Floats = np.unique(found, axis=0)
    return points
