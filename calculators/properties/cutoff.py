"""Smoothness of energy and forces along a path on which neighbours cross the cutoff."""

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
    forces: Floats  # (P,) eV/Å, component along the line

    @property
    def energy_jump(self) -> float:
        """Largest difference (eV) between the energy change in a step and the work of the force.

        The work is computed with the trapezoidal rule, whose error is of third order in the step.
        """
        step = np.diff(self.offsets)
        work = 0.5 * (self.forces[1:] + self.forces[:-1]) * step
        return float(np.abs(np.diff(self.energies) + work).max())

    @property
    def force_jump(self) -> float:
        """Largest second difference of the force (eV/Å); proportional to the squared step."""
        return float(np.abs(np.diff(self.forces, 2)).max())


def move_atom(atoms: Atoms, index: int, direction: ArrayLike, offsets: ArrayLike) -> Path:
    """Energy and force of one atom along a line.

    Args:
        atoms: structure with a calculator; not changed.
        index: index of the atom.
        direction: (3,) vector along the line, of any length.
        offsets: (P,) Å from the position of the atom, in equal steps.
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
