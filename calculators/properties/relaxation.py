"""Relaxation of atomic positions and of the cell in its periodic directions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS

from tesseral.calculators.properties.atoms import copy_atoms, has_stress, largest_force

OPTIMIZERS: dict[str, Any] = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}


class RelaxStep(NamedTuple):
    """State of a relaxation after a step."""

    number: int
    energy: float  # eV/atom
    max_force: float  # eV/Å, on atoms and, if it moves, on the cell
    converged: bool


class Relaxed(NamedTuple):
    """Result of a relaxation."""

    atoms: Atoms
    converged: bool
    steps: int
    max_force: float  # eV/Å, on the atoms at the end


class CellFilter(FrechetCellFilter):  # type: ignore[misc, unused-ignore]
    """ASE's ``FrechetCellFilter``, with the forces on the cell computed once per structure.

    An optimizer requests them three or four times per step, and their matrix logarithms and
    exponentials take longer than the potential of a small crystal. SciPy's warning that a logarithm
    may be inaccurate by 1e-12, frequent for cells that have hardly moved, is suppressed.
    """

    _known: tuple[bytes, Any] = (b"", None)

    def get_positions(self) -> Any:
        """Positions in the undeformed cell and the logarithm of its deformation, (N + 3, 3)."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
            return super().get_positions()  # type: ignore[no-untyped-call]

    def get_forces(self, **options: Any) -> Any:
        """Forces on atoms and cell, (N + 3, 3)."""
        atoms = self.atoms
        key = atoms.positions.tobytes() + atoms.cell.array.tobytes() + repr(options).encode()
        if self._known[0] != key:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
                forces = super().get_forces(**options)  # type: ignore[no-untyped-call]
            self._known = key, forces
        return self._known[1].copy()


def movable(atoms: Atoms, *, fixed_cell: bool, pressure: float = 0.0) -> Any:
    """The degrees of freedom of an optimizer: atoms, and the cell in its periodic directions.

    Args:
        atoms: structure with a calculator.
        fixed_cell: keep the cell fixed.
        pressure: external pressure (GPa).
    """
    if not has_stress(atoms) or fixed_cell:
        return atoms
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # Voigt
    mask = [atoms.pbc[i] and atoms.pbc[j] for i, j in pairs]
    return CellFilter(  # type: ignore[no-untyped-call]
        atoms, mask=mask, scalar_pressure=pressure * units.GPa
    )


def relaxing(
    atoms: Atoms,
    *,
    fmax: float,
    steps: int,
    fixed_cell: bool = False,
    optimizer: str = "bfgs",
    pressure: float = 0.0,
) -> Iterator[RelaxStep]:
    """Relax ``atoms`` themselves, step by step.

    Args:
        atoms: structure with a calculator; changed in place.
        fmax: convergence criterion: maximum force (eV/Å), including the force on the cell.
        steps: maximum number of steps; 0 only evaluates the structure.
        fixed_cell: relax the positions only. The cell never moves in directions that are not
            periodic.
        optimizer: ``bfgs``, ``lbfgs`` for many atoms, or ``fire`` for poor starting structures.
        pressure: external pressure (GPa).

    Returns:
        The state of the initial structure, then the state after each step.

    Raises:
        ValueError: fmax is not positive, the number of steps is negative, or the optimizer is
            unknown. Errors of the calculator are raised during the iteration.
    """
    if not fmax > 0 or steps < 0 or optimizer not in OPTIMIZERS:
        raise ValueError(
            f"fmax is {fmax}, steps {steps}, optimizer {optimizer!r}; use positive numbers and "
            f"one of {', '.join(OPTIMIZERS)}"
        )
    moving = movable(atoms, fixed_cell=fixed_cell, pressure=pressure)

    def run() -> Iterator[RelaxStep]:
        method = OPTIMIZERS[optimizer](moving, logfile=None)
        for number, converged in enumerate(method.irun(fmax=fmax, steps=steps)):
            force = float(np.sqrt((np.asarray(moving.get_forces()) ** 2).sum(axis=1).max()))
            energy = float(atoms.get_potential_energy()) / len(atoms)
            yield RelaxStep(number, energy, force, bool(converged))

    return run()


def relaxed(
    atoms: Atoms, *, fmax: float = 1e-3, steps: int = 300, fixed_cell: bool = False
) -> Relaxed:
    """Relax a copy of ``atoms`` with their calculator.

    Args:
        atoms: structure with a calculator; not changed.
        fmax: convergence criterion: maximum force (eV/Å), including the force on the cell.
        steps: maximum number of steps.
        fixed_cell: relax the positions only.
    """
    atoms = copy_atoms(atoms)
    for step in relaxing(atoms, fmax=fmax, steps=steps, fixed_cell=fixed_cell):  # noqa: B007
        pass
    return Relaxed(atoms, step.converged, step.number, largest_force(atoms))
