"""Structure with its DFT labels, and conversion from and to ASE."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import ArrayLike, NDArray

from tesseral.data.cells import has_volume
from tesseral.data.labels import LabelKeys, find_labels, find_text
from tesseral.data.units import stress_voigt

__all__ = [
    "LabelKeys",
    "Structure",
    "atoms_from_structure",
    "make_structure",
    "structure_from_atoms",
]

NAN = float("nan")


class Structure(NamedTuple):
    """Structure of n atoms with its labels. A missing label is NaN."""

    numbers: NDArray[np.int64]  # (n,)    atomic numbers
    positions: NDArray[np.float64]  # (n, 3)  Å
    cell: NDArray[np.float64]  # (3, 3)  Å, rows are lattice vectors; zeros without a cell
    pbc: NDArray[np.bool_]  # (3,)    periodic directions
    energy: float  # eV
    forces: NDArray[np.float64]  # (n, 3)  eV/Å
    stress: NDArray[np.float64]  # (3, 3)  eV/Å³, positive under tension
    config_type: str = ""
    group: str = ""
    theory: str = ""
    source: str = ""


def make_structure(
    numbers: ArrayLike,
    positions: ArrayLike,
    *,
    cell: ArrayLike | None = None,
    pbc: ArrayLike | None = None,
    energy: float | None = None,
    forces: ArrayLike | None = None,
    stress: ArrayLike | None = None,
) -> Structure:
    """Create and check a `Structure` from array-likes in tesseral's units.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å.
        cell: (3, 3) Å. Default: no cell.
        pbc: (3,) periodic directions. Default: periodic along every cell vector.
        energy: energy (eV). Default: missing.
        forces: (n, 3) eV/Å. Default: missing.
        stress: (3, 3) eV/Å³, positive under tension. Default: missing.

    Raises:
        ValueError: shapes do not match, positions or cell are not finite, or a periodic direction
            has no cell vector.
    """
    z = np.asarray(numbers, dtype=np.int64)
    n = len(z)
    lattice = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    periodic = np.any(lattice != 0, axis=1) if pbc is None else np.asarray(pbc, dtype=bool)
    structure = Structure(
        numbers=z,
        positions=np.asarray(positions, dtype=np.float64),
        cell=lattice,
        pbc=periodic,
        energy=NAN if energy is None else float(energy),
        forces=np.full((n, 3), NAN) if forces is None else np.asarray(forces, dtype=np.float64),
        stress=np.full((3, 3), NAN) if stress is None else np.asarray(stress, dtype=np.float64),
    )
    check_structure(structure)
    return structure


def check_structure(structure: Structure) -> None:
    """Reject an invalid structure.

    Raises:
        ValueError: its shapes, positions, cell or labels are wrong; the message says what.
    """
    n = len(structure.numbers)
    if n == 0:
        raise ValueError("the structure has no atoms")
    if structure.numbers.min() < 1 or structure.numbers.max() > 118:
        row = int(np.flatnonzero((structure.numbers < 1) | (structure.numbers > 118))[0])
        raise ValueError(
            f"atomic numbers must be 1 to 118; atom {row} has {structure.numbers[row]}"
        )
    shapes = {"positions": (n, 3), "forces": (n, 3), "cell": (3, 3), "stress": (3, 3), "pbc": (3,)}
    for name, shape in shapes.items():
        found = getattr(structure, name).shape
        if found != shape:
            raise ValueError(f"{name} of {n} atoms must have the shape {shape}; found {found}")
    if not np.isfinite(structure.positions).all():
        raise ValueError("the positions are not finite numbers")
    if not np.isfinite(structure.cell).all():
        raise ValueError("the cell is not made of finite numbers")
    if np.any(structure.pbc & ~np.any(structure.cell != 0, axis=1)):
        raise ValueError(f"pbc is {structure.pbc} but a periodic direction has no cell vector")
    if not has_volume(structure.cell, structure.pbc):
        raise ValueError("the structure is periodic but its cell has no volume")
    if np.isinf(structure.forces).any() or np.isinf(structure.energy):
        raise ValueError("an energy or a force is infinite")


def structure_from_atoms(atoms: Atoms, keys: LabelKeys | None = None) -> Structure:
    """`Structure` from ASE's atoms, with every label that can be found.

    Labels are taken from the calculator's results (ASE >= 3.23 moves the keys ``energy``,
    ``forces`` and ``stress`` of an extxyz file there), and from ``info`` and ``arrays`` under the
    names of `LabelKeys` or, without them, under common names. Constraints are not applied to the
    forces. A stress is kept only for structures periodic in all three directions.

    Args:
        atoms: ASE's atoms, with positions in Å.
        keys: keys and units of the labels. Default: common names.

    Raises:
        ValueError: a requested key is absent, several candidates disagree, or an entry with an
            unknown name looks like a label.
    """
    keys = LabelKeys() if keys is None else keys
    if not np.isfinite(atoms.positions).all():
        raise ValueError("the positions are not finite numbers")
    labels = find_labels(atoms, keys)
    structure = make_structure(
        atoms.numbers,
        atoms.positions.copy(),
        cell=np.array(atoms.cell.array),
        pbc=atoms.pbc.copy(),
        energy=labels.energy,
        forces=labels.forces,
        stress=labels.stress,
    )
    types = ("config_type", "category") if keys.config_type_key is None else (keys.config_type_key,)
    return structure._replace(
        config_type=find_text(atoms, types),
        group=find_text(atoms, ("group" if keys.group_key is None else keys.group_key,)),
        theory=find_text(atoms, ("theory",)),
        source=find_text(atoms, ("source",)),
    )


def atoms_from_structure(structure: Structure) -> Atoms:
    """ASE's atoms with the known labels in a SinglePointCalculator and the texts in ``info``."""
    atoms = Atoms(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
    )
    for name in ("config_type", "group", "theory", "source"):
        if getattr(structure, name):
            atoms.info[name] = getattr(structure, name)
    results: dict[str, float | NDArray[np.float64]] = {}
    if np.isfinite(structure.energy):
        results["energy"] = structure.energy
    if np.isfinite(structure.forces).all():
        results["forces"] = structure.forces.copy()
    if np.isfinite(structure.stress).all():
        results["stress"] = stress_voigt(structure.stress)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
