"""Smoothness along a path: does the energy jump where atoms enter or leave a neighbourhood?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from tesseral.calculators.properties.atoms import copy_atoms

Floats = NDArray[np.float64]


class Path(NamedTuple):
    """One atom moved in equal steps along a line, P positions."""

    offsets: Floats  # (P,) Å
    energies: Floats  # (P,) eV
    forces: Floats  # (P,) eV/Å, of the atom along the line

    @property
    def energy_jump(self) -> float:
        """Largest change of the energy (eV) in a step that the forces do not explain.

        Work of the force by the trapezoidal rule, whose own error is of third order in the step.
        """
        step = np.diff(self.offsets)
        work = 0.5 * (self.forces[1:] + self.forces[:-1]) * step
        return float(np.abs(np.diff(self.energies) + work).max())

    @property
    def force_jump(self) -> float:
        """Largest second difference of the force (eV/Å), which falls with the step squared."""
        return float(np.abs(np.diff(self.forces, 2)).max())


def move_atom(atoms: Atoms, index: int, direction: ArrayLike, offsets: ArrayLike) -> Path:
    """Energy and force of one atom along a line.

    Args:
        atoms: with a calculator; not changed.
        index: of the atom.
        direction: (3,) of the line, of any length.
        offsets: (P,) Å from where the atom is, in equal steps.
    """
    atoms = copy_atoms(atoms)
    line = np.asarray(direction, dtype=np.float64)
    line = line / np.linalg.norm(line)
    start = atoms.positions[index].copy()
    rows = []
    places = np.asarray(offsets, dtype=np.float64)
    for offset in places:
        atoms.positions[index] = start + offset * line
        force = float(atoms.get_forces()[index] @ line)
        rows.append((float(atoms.get_potential_energy()), force))
    energies, forces = np.array(rows).T
    return Path(places, energies, forces)
