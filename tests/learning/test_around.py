"""Structures around those of a dataset: their temperature, their cells, where they end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes

from tesseral import TesseralCalculator
from tesseral.learning import around as module
from tesseral.learning.around import LOWEST, RATTLE, STRAIN, around, configurational_temperature

TEMPERATURE, SPRING = 700.0, 4.0  # K; eV/Å²


class Springs(Calculator):
    """Independent harmonic atoms, whose canonical ensemble is a normal distribution."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, places: np.ndarray, spring: float = SPRING) -> None:
        super().__init__()
        self.places, self.spring = places, spring

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, changes: object = all_changes
    ) -> None:
        assert atoms is not None
        moved = atoms.positions - self.places
        self.results = {
            "energy": 0.5 * self.spring * float(np.square(moved).sum()),
            "forces": -self.spring * moved,
            "stress": np.zeros(6),
        }


def harmonic(temperature: float) -> Atoms:
    """A crystal with positions drawn at a temperature."""
    atoms = bulk("Cu", cubic=True).repeat(6)
    atoms.calc = Springs(atoms.positions.copy())
    width = np.sqrt(units.kB * temperature / SPRING)
    atoms.positions += np.random.default_rng(1).normal(scale=width, size=(len(atoms), 3))
    return atoms


def test_the_temperature_is_that_of_the_ensemble() -> None:
    found = configurational_temperature(harmonic(TEMPERATURE), np.random.default_rng(0))
    print(f"{found:.0f} K, drawn at {TEMPERATURE:.0f} K")
    assert found == pytest.approx(TEMPERATURE, rel=0.05)


def test_where_the_energy_is_concave_there_is_no_temperature() -> None:
    atoms = harmonic(TEMPERATURE)
    atoms.calc = Springs(atoms.calc.places, spring=-1.0)
    assert configurational_temperature(atoms, np.random.default_rng(0)) == 0.0


def test_dynamics_keep_the_temperature_of_the_structure() -> None:
    atoms = harmonic(TEMPERATURE)
    *_, last = around(atoms, 6, 2.0, np.random.default_rng(0))
    fractions = last.cell.scaled_positions(last.positions)  # the cells are strained
    moved = atoms.cell.cartesian_positions(fractions) - atoms.calc.places
    found = SPRING * np.square(moved).mean() / units.kB
    print(f"{found:.0f} K after 6 frames, drawn at {TEMPERATURE:.0f} K")
    assert found == pytest.approx(TEMPERATURE, rel=0.1)


def test_a_relaxed_structure_moves_at_the_lowest_temperature() -> None:
    atoms = harmonic(0.0)
    *_, last = around(atoms, 12, 2.0, np.random.default_rng(0))
    fractions = last.cell.scaled_positions(last.positions)
    moved = atoms.cell.cartesian_positions(fractions) - atoms.calc.places
    assert SPRING * np.square(moved).mean() / units.kB == pytest.approx(LOWEST, rel=0.15)


def test_cells_of_bulk_matter_are_strained_and_others_are_not() -> None:
    atoms = harmonic(TEMPERATURE)
    frames = list(around(atoms, 3, 2.0, np.random.default_rng(0)))
    strains = [frame.cell.array @ np.linalg.inv(atoms.cell.array) - np.eye(3) for frame in frames]
    assert len({float(strain[0, 0]) for strain in strains}) == 3
    for strain in strains:
        assert 0 < np.abs(strain).max() <= STRAIN
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
    water = molecule("H2O")
    water.calc = Springs(water.positions.copy())
    frames = list(around(water, 3, 1.0, np.random.default_rng(0)))
    assert [frame.get_chemical_formula() for frame in frames] == ["H2O"] * 3
    assert not any(frame.cell.any() for frame in frames)
    assert np.abs(frames[1].positions - frames[0].positions).max() > 0.01


def test_where_the_model_is_lost_copies_are_rattled(
    knowing_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = bulk("SiC", "zincblende", a=5.42, cubic=True)
    atoms.calc = TesseralCalculator(knowing_model, device="cpu")
    monkeypatch.setattr(module, "limit_of", lambda *_: 1e-9)
    frames = list(around(atoms, 50, 2.0, np.random.default_rng(0)))
    moved = [
        atoms.cell.cartesian_positions(frame.cell.scaled_positions(frame.positions))
        - atoms.positions
        for frame in frames
    ]
    assert np.std(moved) == pytest.approx(RATTLE, rel=0.1)
