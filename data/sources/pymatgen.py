"""Conversion from and to pymatgen's structures."""

from __future__ import annotations

from ase import Atoms
from numpy.typing import ArrayLike
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Molecule
from pymatgen.core.structure import Structure as Crystal

from tesseral.data.structures import Structure, make_structure


def structure_from_pymatgen(
    structure: Crystal | Molecule,
    *,
    energy: float | None = None,
    forces: ArrayLike | None = None,
    stress: ArrayLike | None = None,
) -> Structure:
    """`Structure` from pymatgen's Structure or Molecule.

    Args:
        structure: structure with one element on every site.
        energy: eV.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å³, positive under tension.

    Raises:
        ValueError: sites are disordered, or shapes do not match.
    """
    atoms = atoms_from_pymatgen(structure)
    return make_structure(
        atoms.numbers,
        atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        energy=energy,
        forces=forces,
        stress=stress,
    )


def pymatgen_from_structure(structure: Structure) -> Crystal | Molecule:
    """Convert to pymatgen's Structure, or Molecule if nothing is periodic, without labels."""
    if not structure.pbc.any():
        return Molecule(structure.numbers.tolist(), structure.positions)
    a, b, c = (bool(periodic) for periodic in structure.pbc)
    lattice = Lattice(structure.cell, pbc=(a, b, c))
    return Crystal(
        lattice, structure.numbers.tolist(), structure.positions, coords_are_cartesian=True
    )


def atoms_from_pymatgen(structure: Crystal | Molecule) -> Atoms:
    """ASE's atoms from pymatgen's Structure or Molecule, without labels.

    Raises:
        ValueError: sites are disordered.
    """
    if not structure.is_ordered:
        raise ValueError("the structure has sites shared by several elements")
    lattice = getattr(structure, "lattice", None)
    return Atoms(
        numbers=[site.specie.Z for site in structure],
        positions=structure.cart_coords,
        cell=None if lattice is None else lattice.matrix,
        pbc=False if lattice is None else lattice.pbc,
    )
