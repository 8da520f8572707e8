"""Structures on which LAMMPS and Python must agree; each covers a possible source of error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk

from tesseral.data.units import covalent_radius


@dataclass(frozen=True)
class System:
    """Structure for the comparison.

    Args:
        name: name shown to the user.
        atoms: atoms in LAMMPS's order. Those left after removing ``deleted`` are compared.
        deleted: indices of atoms that LAMMPS reads and then deletes.
    """

    name: str
    atoms: Atoms
    deleted: tuple[int, ...] = ()

    @property
    def kept(self) -> Atoms:
        """Atoms that are compared."""
        return self.atoms[[i for i in range(len(self.atoms)) if i not in self.deleted]]


def systems(elements: tuple[int, ...], cutoff: float) -> list[System]:
    """Structures made of the elements of a model.

    Args:
        elements: atomic numbers.
        cutoff: cutoff (Å); one cell is smaller.
    """
    random = np.random.default_rng(0)
    bond = 2.5 * float(np.mean([covalent_radius(z) for z in elements]))

    def dressed(atoms: Atoms, rattle: float = 0.07) -> Atoms:
        """Assign the elements in turn and displace the atoms."""
        atoms.numbers = [elements[i % len(elements)] for i in range(len(atoms))]
        atoms.positions += random.normal(0, rattle * bond, atoms.positions.shape)
        return atoms

    def crystal(times: tuple[int, int, int]) -> Atoms:
        return dressed(bulk("X", "fcc", a=2**0.5 * bond, cubic=True) * times)

    triclinic = crystal((3, 2, 2))
    shear = np.array([[1, 0, 0], [0.15, 1, 0], [-0.1, 0.2, 1]])
    triclinic.set_cell(triclinic.cell.array @ shear, scale_atoms=True)
    tiny = dressed(bulk("X", "bcc", a=1.15 * bond, cubic=True), 0.03)
    slab = crystal((2, 2, 2))
    slab.center(vacuum=2 * cutoff, axis=2)
    slab.pbc = [True, True, False]
    molecule = dressed(
        Atoms(
            "X5",
            positions=bond
            * np.array([[0, 0, 0], [1, 0, 0], [0, 1.1, 0], [0, 0, 0.9], [1, 1, 0.5]]),
        )
    )
    molecule.center(vacuum=1.5 * cutoff)
    corner = crystal((2, 2, 2))
    corner.set_cell(np.diag(corner.cell.lengths() * [8, 1, 1] + [0, 9, 9]))
    corner.pbc = True
    corner.center(axis=(1, 2))
    corner.positions[:, 0] += 0.5 * bond  # no atom beyond the left side
    return [
        System("triclinic", triclinic),
        System("tiny cell", tiny),
        System("slab", slab),
        System("molecule in vacuum", molecule),
        System("deleted atoms", crystal((2, 2, 3)), deleted=(0, 5, 17, 30)),
        System("empty processes", corner),
    ]
