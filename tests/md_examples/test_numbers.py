"""The numbers that the examples return, on EMT aluminium where the answers are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import pressure_gpa, thermalize
from tesseral.calculators.properties.dynamics import Record, Unstable, drift_of
from tesseral.calculators.properties.eos import compare, fit_birch_murnaghan
from tesseral.md_examples.equation_of_state import equation_of_state, read_reference
from tesseral.md_examples.npt import npt
from tesseral.md_examples.nve import nve
from tesseral.md_examples.nvt import nvt
from tesseral.md_examples.relax import relax

A_EMT = 3.9944  # Å, EMT aluminium


def aluminium(a: float = A_EMT, repeat: int = 2) -> Atoms:
    """Cubic aluminium with EMT."""
    atoms = bulk("Al", "fcc", a=a, cubic=True).repeat(repeat)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("optimizer", ["bfgs", "fire"])
def test_relaxation_finds_the_lattice(optimizer: str) -> None:
    atoms = aluminium(4.1, repeat=1)
    atoms.rattle(0.05, seed=1)
    before = atoms.copy()
    result = relax(atoms, fmax=0.001, optimizer=optimizer)
    assert result.converged
    assert result.end.cell[:3] == pytest.approx([A_EMT] * 3, abs=2e-3)
    assert abs(result.end.pressure) < 0.05 < abs(result.start.pressure)
    assert result.end.max_force < 0.001 < result.start.max_force
    assert result.end.energy < result.start.energy
    assert atoms == before


def test_fixed_cell_stays() -> None:
    atoms = aluminium(4.1, repeat=1)
    atoms.rattle(0.05, seed=1)
    result = relax(atoms, fixed_cell=True)
    assert result.converged
    assert result.end.cell == result.start.cell
    assert result.end.pressure < -1


def test_relaxation_leaves_the_vacuum_of_a_slab() -> None:
    atoms = fcc111("Al", (1, 1, 4), a=4.1, vacuum=6.0)
    atoms.calc = EMT()
    result = relax(atoms, fmax=0.02)
    assert result.end.cell[2] == pytest.approx(result.start.cell[2], rel=1e-12)
    assert result.end.cell[0] < result.start.cell[0] - 0.02


def test_unfinished_relaxation_says_so() -> None:
    result = relax(aluminium(4.2, repeat=1), steps=1, fmax=1e-8)
    assert (result.converged, result.steps) == (False, 1)


def test_energy_is_conserved() -> None:
    atoms = aluminium()
    before = atoms.copy()
    result = nve(atoms, temperature=300, time=0.3, timestep=2.0, every=1)
    assert abs(result.drift) < 0.02 < result.record.kinetic.max() * 1000
    assert result.fluctuation < 0.05
    assert result.temperature == pytest.approx(300, abs=120)
    assert result.record.time[-1] == pytest.approx(0.3)
    assert len(result.record.time) == 151
    assert atoms == before


def test_nve_of_a_trained_potential_conserves_energy(small_model: Path) -> None:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.calc = TesseralCalculator(small_model, device="cpu")
    drifts = []
    for timestep in (0.2, 0.1):
        result = nve(atoms, temperature=2000, time=0.01, timestep=timestep, equilibrate=0, every=1)
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
    result = nvt(
        aluminium(), temperature=500, time=1.5, timestep=4.0, damping=40, thermostat=thermostat
    )
    expected_std = 500 * (2 / 96) ** 0.5
    assert result.temperature == pytest.approx(500, abs=60)
    assert 0.4 * expected_std < result.temperature_std < 2.0 * expected_std


def test_barostat_reaches_its_pressure() -> None:
    # EMT aluminium has B = 39 GPa: 3 GPa make it smaller by more than heat makes it larger.
    result = npt(
        aluminium(),
        temperature=100,
        pressure=3.0,
        time=1.6,
        timestep=4.0,
        damping=100,
        pressure_damping=400,
    )
    assert result.pressure == pytest.approx(3.0, abs=0.6)
    assert -0.03 < result.scale - 1 < -0.01
    assert result.volume == pytest.approx(A_EMT**3 / 4 * result.scale**3, rel=1e-9)


@pytest.mark.parametrize("atoms", [Atoms("Al"), fcc111("Al", (1, 1, 2), vacuum=5.0)])
def test_no_barostat_and_no_equation_of_state_without_a_crystal(atoms: Atoms) -> None:
    atoms.calc = EMT()
    with pytest.raises(ValueError, match="periodic in three directions"):
        npt(atoms)
    with pytest.raises(ValueError, match="needs a crystal"):
        equation_of_state(atoms)


class Failing(EMT):
    """EMT that fails after some steps."""

    count = 0

    def calculate(self, *args: object) -> None:
        super().calculate(*args)
        self.count += 1
        if self.count > 20:
            raise CalculationFailed("forces are not finite")


def test_failing_calculator_stops_md_with_files(tmp_path: Path) -> None:
    atoms = aluminium(repeat=1)
    atoms.calc = Failing()
    with pytest.raises(Unstable, match=r"ended at step 1\d of 100 .* forces are not finite"):
        nvt(atoms, time=0.1, every=1, prefix=tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"run.traj", "run.csv", "run.png"}


def test_velocities_have_the_temperature_and_no_drift() -> None:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    thermalize(atoms, 432.1, np.random.default_rng(0))
    assert atoms.get_temperature() == pytest.approx(432.1, rel=1e-12)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)
    again = atoms.copy()
    thermalize(again, 432.1, np.random.default_rng(0))
    np.testing.assert_array_equal(atoms.get_momenta(), again.get_momenta())


def test_pressure_of_moving_atoms_is_the_ideal_gas_law() -> None:
    atoms = aluminium()
    thermalize(atoms, 1000, np.random.default_rng(0))
    kinetic = pressure_gpa(atoms, ideal_gas=True) - pressure_gpa(atoms)
    expected = len(atoms) * units.kB * 1000 / atoms.get_volume() / units.GPa
    assert kinetic == pytest.approx(expected, rel=1e-6)


def test_birch_murnaghan_fit_recovers_its_parameters() -> None:
    v0, e0, b0, b1 = 41.2, -7.3, 95.0, 4.6
    volumes = v0 * np.linspace(0.92, 1.08, 7)
    x = (v0 / volumes) ** (2 / 3)
    energies = e0 + 9 / 16 * v0 * b0 * units.GPa * ((x - 1) ** 3 * b1 + (x - 1) ** 2 * (6 - 4 * x))
    fit = fit_birch_murnaghan(volumes, energies)
    assert fit[:4] == pytest.approx((v0, e0, b0, b1), rel=1e-6)
    np.testing.assert_allclose(fit(volumes), energies, atol=1e-10)


def test_energies_without_a_minimum_are_refused() -> None:
    volumes = np.linspace(10, 12, 7)
    with pytest.raises(ValueError, match=r"no minimum between 10\.00 and 12\.00"):
        fit_birch_murnaghan(volumes, -volumes)


def test_equation_of_state_agrees_with_the_stress(tmp_path: Path) -> None:
    atoms = aluminium(4.0, repeat=1)
    result = equation_of_state(atoms, points=9, prefix=tmp_path / "eos")
    assert result.lattice == pytest.approx({"a": A_EMT}, abs=1e-3)
    pressures = []
    for scale in (0.999, 1.001):
        strained = aluminium(A_EMT * scale, repeat=1)
        pressures.append(pressure_gpa(strained))
    bulk_modulus = -(pressures[1] - pressures[0]) / (1.001**3 - 0.999**3)
    assert result.fit.bulk_modulus == pytest.approx(bulk_modulus, rel=0.03)
    content = json.loads((tmp_path / "eos.json").read_text())
    assert content["bulk_modulus_GPa"] == result.fit.bulk_modulus
    assert (tmp_path / "eos.png").stat().st_size > 1000


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[Path]:
    """Reference values like those of DFT, in a file."""
    volumes = np.linspace(56, 72, 7)
    energies = -15.0 + 0.002 * (volumes - 63.9) ** 2
    entry = {
        "a0_A": 4.0,
        "B_GPa": 40.0,
        "e0_eV_per_atom": -3.75,
        "eos": {"V": volumes.tolist(), "E": energies.tolist()},
    }
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"Al": entry, "Cu": {"a0_A": 3.6}, "E0": 1}))
    yield path


def test_comparison_does_not_depend_on_the_cell(reference: Path) -> None:
    entry = read_reference(reference, "Al")
    primitive = bulk("Al", "fcc", a=4.0)
    primitive.calc = EMT()
    for atoms in (primitive, aluminium(4.0, repeat=1)):
        off = compare(equation_of_state(atoms, fixed_positions=True), entry)
        assert off["a_percent"] == pytest.approx(100 * (A_EMT / 4.0 - 1), abs=0.02)


@pytest.mark.parametrize(
    ("name", "message"), [("Ag", "no crystal 'Ag'"), ("E0", "no crystal"), ("Cu", "has no B_GPa")]
)
def test_reference_without_the_crystal(reference: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_reference(reference, name)
