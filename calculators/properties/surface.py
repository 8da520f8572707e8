"""Surface energies of crystals."""

from __future__ import annotations

from typing import NamedTuple

import ase.build
import numpy as np
from ase import Atoms, units

from tesseral.calculators.properties.atoms import is_crystal
from tesseral.calculators.properties.relaxation import relaxed

J_PER_M2 = units.J / units.m**2  # in eV/Å²


class Surface(NamedTuple):
    """Energy of a surface, ``(E(slab) - N E(bulk)) / 2A``; the mean of both sides of the slab."""

    unrelaxed: float  # J/m², the atoms at their lattice sites
    relaxed: float  # J/m², at fixed cell
    area: float  # Å², of one side
    slab: Atoms  # relaxed, with its calculator
    converged: bool


def surface_energy(
    crystal: Atoms,
    miller: tuple[int, int, int],
    *,
    thickness: float = 12.0,
    vacuum: float = 10.0,
    fmax: float = 0.01,
    steps: int = 200,
) -> Surface:
    """Energy of a surface from a stoichiometric slab of whole unit cells.

    A crystal may have several terminations of the same plane; the slab has that at which ASE's
    ``surface`` begins, and its counterpart on the other side.

    Args:
        crystal: relaxed crystal with a calculator; not changed.
        miller: Miller indices of the plane in the cell of the crystal.
        thickness: least thickness (Å) of the slab.
        vacuum: width (Å) of the vacuum on each side.
        fmax: convergence criterion of the relaxation at fixed cell: maximum force (eV/Å).
        steps: maximum number of steps of the relaxation.

    Raises:
        ValueError: the atoms are not periodic in three directions.
    """
    if not is_crystal(crystal):
        raise ValueError(f"a surface energy needs a crystal; pbc is {crystal.pbc.tolist()}")
    one = ase.build.surface(crystal, miller, layers=1, periodic=True)
    height = abs(one.get_volume()) / float(np.linalg.norm(np.cross(*one.cell.array[:2])))
    layers = max(1, int(np.ceil(thickness / height)))
    slab = ase.build.surface(crystal, miller, layers=layers, vacuum=vacuum, periodic=True)
    slab.set_constraint()
    slab.calc = crystal.calc
    area = float(np.linalg.norm(np.cross(*slab.cell.array[:2])))
    bulk = float(crystal.get_potential_energy()) / len(crystal) * len(slab)
    unrelaxed = float(slab.get_potential_energy()) - bulk
    end = relaxed(slab, fmax=fmax, steps=steps, cell="fixed")
    energy = float(end.atoms.get_potential_energy()) - bulk
    return Surface(
        unrelaxed / (2 * area) / J_PER_M2,
        energy / (2 * area) / J_PER_M2,
        area,
        end.atoms,
        end.converged,
    )
