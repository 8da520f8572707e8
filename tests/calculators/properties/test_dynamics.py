"""Runs at constant energy, temperature and pressure where the answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import Trajectory

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import pressure_gpa, thermalize
from tesseral.calculators.properties.dynamics import (
    Record,
    Unstable,
    conserved_energy,
    drift_of,
    equilibrated,
    hot_run,
    recorded,
)
from tesseral.calculators.properties.ensembles import canonical, isobaric, start

A_EMT = 3.9944  # Å, EMT aluminium


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


def aluminium(repeat: int = 2) -> Atoms:
    """Cubic aluminium with EMT."""
    atoms = bulk("Al", "fcc", a=A_EMT, cubic=True).repeat(repeat)
    atoms.calc = EMT()
    return atoms


def test_energy_is_conserved() -> None:
    hot = equilibrated(aluminium(), temperature=300, time=0.2, timestep=2.0)
    before = hot.copy()
    result = conserved_energy(hot, temperature=300, time=0.3, timestep=2.0)
    assert abs(result.drift) < 0.02 < result.record.kinetic.max() * 1000
    assert result.fluctuation < 0.05
    assert result.temperature == pytest.approx(300, abs=120)
    assert result.record.time[-1] == pytest.approx(0.3)
    assert len(result.record.time) == 151
    assert hot == before


def test_a_trained_potential_conserves_energy(small_model: Path) -> None:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.calc = TesseralCalculator(small_model, device="cpu")
    atoms, _ = start(atoms, 2000, 0)
    drifts = []
    for timestep in (0.2, 0.1):
        result = conserved_energy(atoms, temperature=2000, time=0.01, timestep=timestep)
        total = 1000 * result.record.total
        drifts.append(float(np.abs(total - total[0]).max()))
        work = 1000 * float(np.ptp(result.record.potential))
        assert drifts[-1] < 0.01 * work
    assert drifts[1] < 0.4 * drifts[0]  # velocity Verlet is of second order: a quarter


def test_drift_is_the_slope_of_the_total_energy() -> None:
    time = np.linspace(0, 2, 101)
    potential = -3.0 + 1e-3 * (0.7 * time + 0.2 * np.sin(400 * time))
    rest = np.full_like(time, 1.0)
    drift = drift_of(Record(time, potential, rest, 300 * rest, rest, rest))
    assert drift.drift == pytest.approx(1.4, abs=0.1)
    assert drift.rate == pytest.approx(700, abs=50)
    assert drift.fluctuation == pytest.approx(0.2 / 2**0.5, rel=0.1)


@pytest.mark.parametrize("thermostat", ["bussi", "langevin"])
def test_thermostat_reaches_its_temperature(thermostat: str) -> None:
    atoms, rng = start(aluminium(), 500, 0)
    dynamics = canonical(atoms, 4.0, 500, rng, thermostat=thermostat, damping=40)
    record = recorded(atoms, dynamics, time=1.5, timestep=4.0, temperature=500)
    late = record.temperature[len(record.time) // 2 :]
    expected_std = 500 * (2 / 96) ** 0.5
    assert late.mean() == pytest.approx(500, abs=60)
    assert 0.4 * expected_std < late.std() < 2.0 * expected_std


def test_barostat_reaches_its_pressure() -> None:
    # EMT aluminium has B = 39 GPa: 3 GPa make it smaller by more than heat makes it larger.
    atoms, _ = start(aluminium(), 100, 0)
    dynamics = isobaric(atoms, 4.0, 100, pressure=3.0, damping=100, pressure_damping=400)
    record = recorded(atoms, dynamics, time=1.6, timestep=4.0, temperature=100)
    late = slice(len(record.time) // 2, None)
    assert record.pressure[late].mean() == pytest.approx(3.0, abs=0.6)
    assert record.volume[0] == pytest.approx(A_EMT**3 / 4, rel=1e-9)
    scale = (record.volume[late].mean() / record.volume[0]) ** (1 / 3)
    assert -0.03 < scale - 1 < -0.01


@pytest.mark.parametrize("cell", ["isotropic", "axes", "free"])
def test_the_shape_of_the_cell_changes_if_it_may(cell: str) -> None:
    atoms = aluminium()
    atoms.set_cell(atoms.cell.array * [[1.03], [1.0], [0.98]], scale_atoms=True)
    atoms, _ = start(atoms, 100, 0)
    dynamics = isobaric(atoms, 4.0, 100, damping=100, pressure_damping=300, cell=cell)
    before = dynamics.get_conserved_energy()
    cells = []
    for number, _ in enumerate(dynamics.irun(300)):
        if number >= 150:
            cells.append(atoms.cell.array.copy())
    lengths = np.linalg.norm(np.mean(cells, axis=0), axis=1)
    spread = np.ptp(lengths) / lengths.mean()
    assert spread == pytest.approx(0.05, abs=1e-3) if cell == "isotropic" else spread < 0.015
    assert np.abs(atoms.cell.angles() - 90).max() < (5.0 if cell == "free" else 1e-6)
    assert abs(dynamics.get_conserved_energy() - before) < 0.002 * len(atoms)


def test_oblique_axes_do_not_change_by_themselves() -> None:
    with pytest.raises(ValueError, match="angles 60.0°, 60.0°, 60.0°: use `cell='free'`"):
        isobaric(bulk("Al"), 1.0, 300, cell="axes")


@pytest.mark.parametrize("atoms", [Atoms("Al"), fcc111("Al", (1, 1, 2), vacuum=5.0)])
def test_no_barostat_without_a_crystal(atoms: Atoms) -> None:
    with pytest.raises(ValueError, match="periodic in three directions"):
        isobaric(atoms, 1.0, 300)


class Failing(EMT):
    """EMT that fails after some steps."""

    count = 0

    def calculate(self, *args: object) -> None:
        super().calculate(*args)
        self.count += 1
        if self.count > 20:
            raise CalculationFailed("forces are not finite")


def test_failing_calculator_stops_md_and_leaves_the_trajectory(tmp_path: Path) -> None:
    atoms = aluminium(repeat=1)
    atoms.calc = Failing()
    atoms, rng = start(atoms, 300, 0)
    dynamics = canonical(atoms, 1.0, 300, rng)
    with (
        Trajectory(tmp_path / "run.traj", "w", atoms) as trajectory,
        pytest.raises(Unstable, match=r"ended at step 1\d of 100 .* forces are not finite"),
    ):
        dynamics.attach(trajectory)
        recorded(atoms, dynamics, time=0.1, timestep=1.0, temperature=300)
    with Trajectory(tmp_path / "run.traj") as frames:
        assert len(frames) > 10


def test_rows_are_recorded_at_the_steps_asked_for_and_all_steps_shown() -> None:
    atoms, rng = start(aluminium(repeat=1), 300, 0)
    seen: list[int] = []
    record = recorded(
        atoms,
        canonical(atoms, 1.0, 300, rng),
        time=0.02,
        timestep=1.0,
        temperature=300,
        every=5,
        show=lambda step: seen.append(step.number),
    )
    assert record.time.tolist() == [0.0, 0.005, 0.01, 0.015, 0.02]
    assert seen == list(range(21))


def test_a_molecule_without_a_cell_runs(stable_model: Path) -> None:
    atoms = Atoms("Si2C", positions=[[0, 0, 0], [0, 0, 2.6], [0, 2.2, 1.3]])
    atoms.calc = TesseralCalculator(stable_model)
    atoms, rng = start(atoms, 50, 0)
    dynamics = canonical(atoms, 0.5, 50, rng)
    record = recorded(atoms, dynamics, time=0.005, timestep=0.5, temperature=300, every=5)
    assert np.isfinite(record.total).all()
    assert np.isnan(record.volume).all() and np.isnan(record.pressure).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time": 0.0}, "`time` is 0"),
        ({"timestep": math.nan}, "`timestep` is nan"),
        ({"every": 0}, "`every` is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    atoms, rng = start(aluminium(repeat=1), 300, 0)
    dynamics = canonical(atoms, 1.0, 300, rng)
    given = {"time": 0.1, "timestep": 1.0, "temperature": 300, "every": 1, **settings}
    with pytest.raises(ValueError, match=message):
        recorded(atoms, dynamics, **given)


@pytest.mark.parametrize("temperature", [-5.0, 0.0, math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="`temperature` is"):
        start(aluminium(repeat=1), temperature, 0)


def test_damping_times_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="`pressure_damping` 0 fs"):
        isobaric(aluminium(repeat=1), 1.0, 300, pressure_damping=0)


def test_velocities_have_the_temperature_and_no_drift() -> None:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    thermalize(atoms, 432.1, np.random.default_rng(0))
    assert atoms.get_temperature() == pytest.approx(432.1, rel=1e-12)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)


def test_pressure_of_moving_atoms_is_the_ideal_gas_law() -> None:
    atoms = aluminium()
    thermalize(atoms, 1000, np.random.default_rng(0))
    kinetic = pressure_gpa(atoms, ideal_gas=True) - pressure_gpa(atoms)
    expected = len(atoms) * units.kB * 1000 / atoms.get_volume() / units.GPa
    assert kinetic == pytest.approx(expected, rel=1e-6)
