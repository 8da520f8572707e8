"""Surface energies of crystals."""

from __future__ import annotations

from typing import NamedTuple

import ase.build
import numpy as np
from ase import Atoms, units

from tesseral.calculators.properties.atoms import is_crystal
from tesseral.calculators.properties.relaxation import relaxed

LAYER = 0.1  # Å; atoms at heights that differ by less are in one layer
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
    """Energy of a surface from a stoichiometric slab of whole unit cells; see `lowest_slab`.

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
    slab = lowest_slab(crystal, miller, thickness=thickness, vacuum=vacuum)
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


def lowest_slab(
    crystal: Atoms, miller: tuple[int, int, int], *, thickness: float = 12.0, vacuum: float = 10.0
) -> Atoms:
    """The slab of whole unit cells between two planes that has the lowest energy, not relaxed.

    A crystal has as many terminations of a plane as there are gaps between its layers of atoms.
    The arguments are those of `surface_energy`. The slab has the calculator of the crystal.
    """
    slabs = [_cut(crystal, miller, at, thickness, vacuum) for at in _gaps(crystal, miller)]
    for slab in slabs:
        slab.calc = crystal.calc
    return min(slabs, key=lambda slab: round(float(slab.get_potential_energy()), 5))


def _gaps(crystal: Atoms, miller: tuple[int, int, int]) -> list[float]:
    """Middles of the gaps between layers, in units of the distance of lattice planes."""
    one = crystal.get_scaled_positions() @ (np.asarray(miller) / np.gcd.reduce(miller))
    places = np.sort(one % 1.0)
    widths = np.diff(places, append=places[0] + 1.0)
    spacing = 1 / np.linalg.norm(crystal.cell.reciprocal().T @ miller) * np.gcd.reduce(miller)
    middles: list[float] = (places + 0.5 * widths)[widths * spacing > LAYER].tolist()
    return middles


def _cut(
    crystal: Atoms, miller: tuple[int, int, int], at: float, thickness: float, vacuum: float
) -> Atoms:
    """The slab cut at a height between layers of atoms.

    ASE's ``surface`` cuts at the planes through the lattice points. A layer of atoms on such a
    plane would be divided between both sides of the slab by rounding errors.
    """
    normal = np.asarray(miller, dtype=np.float64) / np.gcd.reduce(miller)
    crystal = crystal.copy()
    crystal.set_constraint()
    places = crystal.get_scaled_positions() - normal / (normal @ normal) * at
    crystal.set_scaled_positions(places)
    one = ase.build.surface(crystal, miller, layers=1, periodic=True)
    height = abs(one.get_volume()) / float(np.linalg.norm(np.cross(*one.cell.array[:2])))
    layers = max(1, int(np.ceil(thickness / height)))
    slab: Atoms = ase.build.surface(crystal, miller, layers, vacuum=vacuum, periodic=True)
    return slab
