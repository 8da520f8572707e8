"""Relaxation of positions and of the cell in its periodic directions."""

from __future__ import annotations

from typing import Any, NamedTuple

from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from tesseral.calculators.properties.atoms import copy_atoms, has_stress, largest_force


class Relaxed(NamedTuple):
    """Result of a relaxation."""

    atoms: Atoms
    converged: bool
    steps: int
    max_force: float  # eV/Å, of the atoms, at the end


def movable(atoms: Atoms, *, fixed_cell: bool) -> Any:
    """What an optimizer is to move: the atoms, with their cell where it is periodic."""
    if not has_stress(atoms) or fixed_cell:
        return atoms
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # Voigt
    return FrechetCellFilter(atoms, mask=[atoms.pbc[i] and atoms.pbc[j] for i, j in pairs])


def relaxed(
    atoms: Atoms, *, fmax: float = 1e-3, steps: int = 300, fixed_cell: bool = False
) -> Relaxed:
    """Relax a copy of ``atoms`` with their calculator.

    Args:
        atoms: not changed.
        fmax: eV/Å, largest force (and cell force) of a relaxed structure.
        steps: at most so many.
        fixed_cell: positions only.
    """
    atoms = copy_atoms(atoms)
    method = BFGS(movable(atoms, fixed_cell=fixed_cell), logfile=None)
    converged = bool(method.run(fmax=fmax, steps=steps))
    return Relaxed(atoms, converged, int(method.nsteps), largest_force(atoms))
