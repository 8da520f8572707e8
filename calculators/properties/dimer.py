"""Energy of two atoms in vacuum against distance, and holes where they should repel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from tesseral.data.units import covalent_radius

Floats = NDArray[np.float64]

DIRECTION = np.array([0.48, -0.64, 0.6])  # no coordinate axis, which could hide errors


class DimerCurve(NamedTuple):
    """A pair of atoms at P distances, ascending."""

    symbols: tuple[str, str]
    distances: Floats  # (P,) Å
    energies: Floats  # (P,) eV, relative to two free atoms
    forces: Floats  # (P,) eV/Å, positive for repulsion
    bond: float  # Å, sum of the covalent radii


class Hole(NamedTuple):
    """A region at short distance where two atoms attract each other."""

    distance: float  # Å, at the top of the barrier in front of it
    depth: float  # eV, decrease of the energy behind the barrier
    barrier: float  # eV, top of the barrier above the lowest energy outside


def dimer_curve(
    calculator: Any,
    symbols: tuple[str, str],
    *,
    shortest: float = 0.5,
    longest: float = 5.0,
    points: int = 226,
) -> DimerCurve:
    """Energy and force of two atoms at distances from ``shortest`` to ``longest`` Å.

    Args:
        calculator: ASE calculator that knows the elements.
        symbols: chemical symbols of the two atoms.
        shortest: smallest distance (Å).
        longest: largest distance (Å), usually the cutoff; 1 Å beyond it the atoms count as free.
        points: number of distances.
    """
    atoms = Atoms(list(symbols), positions=np.zeros((2, 3)))
    atoms.calc = calculator

    def at(distance: float) -> tuple[float, float]:
        atoms.positions[1] = distance * DIRECTION
        force = float(atoms.get_forces()[1] @ DIRECTION)
        return float(atoms.get_potential_energy()), force

    distances = np.linspace(shortest, longest, points)
    free, _ = at(longest + 1.0)
    energies, forces = np.array([at(float(distance)) for distance in distances]).T
    first, second = (covalent_radius(int(number)) for number in atoms.numbers)
    return DimerCurve(symbols, distances, energies - free, forces, first + second)


def find_hole(curve: DimerCurve, fraction: float = 0.8) -> Hole | None:
    """The largest decrease of the energy with decreasing distance, at short distance.

    Args:
        curve: from ``dimer_curve``.
        fraction: fraction of the sum of the covalent radii below which atoms must repel each other.

    Returns:
        The hole, or None if the energy only rises.
    """
    inside = np.flatnonzero(curve.distances <= fraction * curve.bond)
    if len(inside) < 2:
        return None
    inward = curve.energies[inside[::-1]]
    highest = np.maximum.accumulate(inward)
    falls = highest - inward
    deepest = int(np.argmax(falls))
    if not falls[deepest] > 0:
        return None
    top = int(np.argmax(inward[: deepest + 1]))
    outside = curve.energies[inside[-1 - top] :]
    return Hole(
        distance=float(curve.distances[inside[::-1]][top]),
        depth=float(falls[deepest]),
        barrier=float(inward[top] - outside.min()),
    )
