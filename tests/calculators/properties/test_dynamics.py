"""Drift and fluctuation where they are known, and runs that must end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from tesseral.calculators.properties.dynamics import (
    Record,
    Unstable,
    conserved_energy,
    drift_of,
    equilibrated,
    hot_run,
)


class Springs(Calculator):
    """Each atom on a spring of 10 eV/Å² to the origin; its force is wrong by a factor."""

    implemented_properties = ("energy", "forces")

    def __init__(self, friction: float = 0.0) -> None:
        super().__init__()
        self.friction = friction

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        r = self.atoms.positions
        drag = self.friction * self.atoms.get_velocities()
        self.results = {"energy": 5.0 * float((r**2).sum()), "forces": -10.0 * r - drag}


def oscillators(friction: float = 0.0) -> Atoms:
    atoms = Atoms("Si8")
    atoms.calc = Springs(friction)
    rng = np.random.default_rng(0)
    atoms.set_velocities(0.02 * rng.normal(size=(8, 3)))
    return atoms


def test_harmonic_energy_is_conserved_and_its_fluctuation_is_of_second_order() -> None:
    runs = [
        conserved_energy(oscillators(), temperature=300, time=1.0, timestep=step)
        for step in (1.0, 2.0)
    ]
    for run in runs:
        assert abs(run.rate) < 3 * run.rate_error + 1e-3
    assert math.log2(runs[1].fluctuation / runs[0].fluctuation) == pytest.approx(2.0, abs=0.1)


def test_friction_shows_as_a_drift() -> None:
    run = conserved_energy(oscillators(0.01), temperature=300, time=1.0, timestep=1.0)
    assert run.rate < -10 * run.rate_error < 0


def test_the_error_of_a_rate_is_that_of_noise() -> None:
    rng = np.random.default_rng(1)
    time = np.linspace(0, 2, 2001)
    rates, errors = [], []
    for _ in range(200):
        energy = 1e-3 * rng.normal(size=len(time))
        rest = np.ones_like(time)
        found = drift_of(Record(time, energy, rest, rest, rest, rest))
        rates.append(found.rate)
        errors.append(found.rate_error)
    assert np.mean(errors) == pytest.approx(np.std(rates), rel=0.15)


def test_a_short_record_has_no_error() -> None:
    time = np.linspace(0, 1, 5)
    assert math.isnan(drift_of(Record(time, time, time, time, time, time)).rate_error)


def test_the_thermostat_leaves_the_atoms_that_it_was_given() -> None:
    atoms = bulk("Al", cubic=True)
    atoms.calc = EMT()
    before = atoms.copy()
    warm = equilibrated(atoms, temperature=300, time=0.02, timestep=2.0)
    assert atoms == before
    assert warm.get_temperature() > 50


def test_a_hot_run_watches_the_distances() -> None:
    atoms = bulk("Al", cubic=True)
    atoms.calc = EMT()
    run = hot_run(atoms, temperature=600, time=0.05, timestep=2.0, every=5)
    assert len(run.closest) == len(run.record.time) == 6
    assert 0.8 < run.closest.min() < run.closest[0]


def test_an_explosion_ends_the_run() -> None:
    atoms = oscillators(-5.0)
    with pytest.raises(Unstable, match=r"ended at step \d+ of 1000 .* temperature is"):
        conserved_energy(atoms, temperature=300, time=1.0, timestep=1.0)
