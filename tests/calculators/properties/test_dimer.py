"""Holes of dimer curves, and jumps along a path, of calculators made for it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from tesseral.calculators.properties.atoms import closest_approach
from tesseral.calculators.properties.cutoff import move_atom
from tesseral.calculators.properties.dimer import dimer_curve, find_hole


class Pair(Calculator):
    """Two atoms with an energy and slope that depend on their distance."""

    implemented_properties = ("energy", "forces")

    def __init__(self, energy: Callable[[float], float], slope: Callable[[float], float]) -> None:
        super().__init__()
        self.energy, self.slope = energy, slope

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vector = self.atoms.positions[1] - self.atoms.positions[0]
        r = float(np.linalg.norm(vector))
        pull = self.slope(r) * vector / r
        self.results = {"energy": self.energy(r), "forces": np.array([pull, -pull])}


def repulsive() -> Pair:
    return Pair(lambda r: 30 * math.exp(-2 * r), lambda r: -60 * math.exp(-2 * r))


def with_hole(height: float) -> Pair:
    """A barrier of this height (eV) at 0.9 Å, 4 eV less at 0.5 Å, next to nothing beyond 2 Å."""
    points = ([0.0, 0.5, 0.9, 2.0, 9.0], [height - 4, height - 4, height, 0.0, 0.0])

    def energy(r: float) -> float:
        return float(np.interp(r, *points))

    return Pair(energy, lambda r: (energy(r + 1e-5) - energy(r - 1e-5)) / 2e-5)


def test_curve_is_energy_and_force_of_the_calculator() -> None:
    curve = dimer_curve(repulsive(), ("Si", "C"), longest=4.0, points=8)
    assert curve.distances[[0, -1]] == pytest.approx([0.5, 4.0])
    free = 30 * math.exp(-10)
    assert curve.energies == pytest.approx(30 * np.exp(-2 * curve.distances) - free)
    assert curve.forces == pytest.approx(60 * np.exp(-2 * curve.distances))
    assert curve.bond == pytest.approx(1.11 + 0.76, abs=0.02)


def test_repulsion_has_no_hole() -> None:
    assert find_hole(dimer_curve(repulsive(), ("Si", "Si"))) is None


@pytest.mark.parametrize("height", [5.0, 50.0])
def test_a_hole_is_found_with_its_depth_and_barrier(height: float) -> None:
    hole = find_hole(dimer_curve(with_hole(height), ("Si", "Si")))
    assert hole is not None
    assert hole.distance == pytest.approx(0.9, abs=0.02)
    assert hole.depth == pytest.approx(4.0, abs=0.1)
    assert hole.barrier == pytest.approx(height, rel=0.03)


def test_a_bond_is_not_a_hole() -> None:
    bond = Pair(lambda r: (r - 2.35) ** 2, lambda r: 2 * (r - 2.35))
    assert find_hole(dimer_curve(bond, ("Si", "Si"))) is None


def path(pair: Pair):
    atoms = Atoms("Si2", positions=[(0, 0, 0), (0, 0, 2.0)])
    atoms.calc = pair
    return move_atom(atoms, 1, (0, 0, 3), np.arange(-50, 51) * 1e-3)


def test_a_smooth_path_has_no_jumps() -> None:
    found = path(repulsive())
    assert found.energy_jump < 1e-8
    assert found.force_jump < 1e-5
    assert found.forces[50] == pytest.approx(60 * math.exp(-4))


def test_a_step_of_the_energy_is_seen() -> None:
    step = Pair(lambda r: 0.002 * (r > 2.0105), lambda r: 0.0)
    assert path(step).energy_jump == pytest.approx(0.002, rel=1e-6)


def test_a_kink_of_the_energy_is_seen() -> None:
    kink = Pair(lambda r: 0.3 * max(0.0, r - 2.0105), lambda r: 0.3 * (r > 2.0105))
    assert path(kink).force_jump == pytest.approx(0.3, rel=1e-6)


def test_closest_approach_is_a_fraction_of_the_bond() -> None:
    atoms = Atoms("SiC", positions=[(0, 0, 0), (0, 0, 1.87)], cell=[9, 9, 9], pbc=True)
    assert closest_approach(atoms) == pytest.approx(1.0, abs=0.01)
    atoms.positions[1, 2] = 9 - 0.935
    assert closest_approach(atoms) == pytest.approx(0.5, abs=0.01)
    assert closest_approach(Atoms("Si")) == math.inf
