"""Second derivatives of the energy, exact where the calculator has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import copy_atoms

Floats = NDArray[np.float64]

STEP = 0.005  # Å


def hessian(
    atoms: Atoms, indices: Sequence[int] | None = None, *, step: float | None = None
) -> Floats:
    """Second derivatives of the energy by the positions; constraints have no effect.

    Args:
        atoms: structure with a calculator; not changed.
        indices: atoms whose rows are computed. Default: all.
        step: displacement (Å) of central differences of the forces. Default: none for a
            ``TesseralCalculator`` without dispersion, whose ``get_hessian`` needs no differences;
            0.005 Å for others.

    Returns:
        (3n, 3N) eV/Å²; x, y and z of n atoms by x, y and z of all N atoms.

    Raises:
        ValueError: ``step`` is not positive.
    """
    if step is not None and not step > 0:
        raise ValueError(f"`step` is {step} Å; use a small positive one, such as {STEP}")
    calculator = atoms.calc
    if step is None and isinstance(calculator, TesseralCalculator) and not calculator.dispersion:
        exact: Floats = calculator.get_hessian(atoms, indices)
        return exact
    step = STEP if step is None else step
    rows = []
    for index in range(len(atoms)) if indices is None else indices:
        for axis in range(3):
            sides = []
            for sign in (1.0, -1.0):
                moved = copy_atoms(atoms)
                moved.positions[index, axis] += sign * step
                sides.append(moved.get_forces(apply_constraint=False).ravel())
            rows.append((sides[1] - sides[0]) / (2 * step))
    return np.array(rows)
