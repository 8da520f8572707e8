"""The limit of expected errors: runs stop there and say why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.simulations.dynamics import UNKNOWN, MdConfig, md_one
from tesseral.calculators.simulations.relaxation import RelaxConfig, relax_one
from tesseral.calculators.simulations.uncertainty import Watch


@pytest.fixture
def knowing(knowing_model: Path) -> TesseralCalculator:
    """A calculator that knows its uncertainty."""
    return TesseralCalculator(knowing_model, dtype="float64")


def silent(step: int, steps: int, text: str) -> None:
    """Show nothing."""


def expected(calculator: TesseralCalculator, atoms: Atoms) -> float:
    """Largest expected force error."""
    calculator.calculate(atoms)
    return float(calculator.results["forces_uncertainty"].max())


def with_errors(atoms, largest):
    """A copy with an expected error of one atom, eV/Å."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy)
    copy.calc.results["forces_uncertainty"] = np.eye(1, len(copy))[0] * largest
    return copy


def test_the_results_have_the_uncertainty_of_atoms_and_of_the_energy(knowing, crystal):
    knowing.calculate(crystal)
    errors = knowing.results["forces_uncertainty"]
    assert errors.shape == (8,)
    total = 0.1 * np.square(np.maximum(errors, 1.0)).sum()  # the errors are distances here
    assert knowing.results["energy_uncertainty"] == pytest.approx(total)


def test_a_run_stops_at_the_limit_and_writes_the_structure(knowing, crystal, tmp_path):
    limit = 0.5 * expected(knowing, crystal)
    config = MdConfig(structures=[], time=0.2, temperature=3000.0, stop_uncertainty=limit)
    outcome = md_one(crystal, knowing, config, tmp_path / "run", silent)
    assert outcome.word == "stopped"
    assert 0 < outcome.steps < 200
    assert "unlike those of the training set" in outcome.reason
    structure = ase.io.read(tmp_path / f"run{UNKNOWN}")
    assert structure.arrays["forces_uncertainty"].max() > limit


def test_a_stopped_run_can_run_on(knowing, crystal, tmp_path):
    limit = 0.2 * expected(knowing, crystal)
    config = MdConfig(structures=[], time=0.02, stop_uncertainty=limit)
    assert md_one(crystal, knowing, config, tmp_path / "run", silent).steps == 0
    config = replace(config, no_stop_uncertainty=True)
    outcome = md_one(crystal, knowing, config, tmp_path / "run", silent)
    assert (outcome.word, outcome.steps) == ("done", 20)


def test_a_short_encounter_does_not_stop_a_run(crystal):
    watch, limit = Watch(1.0, timestep=2.0), 10
    for largest, steps, stops in ((1.5, limit, False), (0.5, 1, False), (1.5, limit, False)):
        for _ in range(steps):
            assert bool(watch.strange(with_errors(crystal, largest))) == stops
    assert watch.strange(with_errors(crystal, 1.5))
    assert Watch(1.0, timestep=2.0).strange(with_errors(crystal, 5.0))
    assert not Watch(None, timestep=2.0).strange(with_errors(crystal, 5.0))


def test_a_limit_needs_a_model_that_knows_its_uncertainty(calculator, crystal, tmp_path):
    config = MdConfig(structures=[], time=0.02, stop_uncertainty=1.0)
    with pytest.raises(ValueError, match="does not know its uncertainty"):
        md_one(crystal, calculator, config, tmp_path / "run", silent)


def test_a_relaxed_structure_beyond_the_limit_is_told(knowing, crystal, tmp_path, monkeypatch):
    config = RelaxConfig(structures=[], steps=2)
    monkeypatch.setitem(knowing.card.uncertainty, "stop", 1e-6)
    outcome = relax_one(crystal, knowing, config, tmp_path / "run", silent)
    assert "unlike those of the training set" in str(outcome.values["uncertain"])


def test_pairs_closer_than_in_the_training_set_are_told(knowing, crystal, tmp_path, monkeypatch):
    count = len(knowing.card.elements)
    far = [4.0] * (count * (count + 1) // 2)
    monkeypatch.setitem(knowing.card.uncertainty, "closest", far)
    config = RelaxConfig(structures=[], steps=2)
    outcome = relax_one(crystal, knowing, config, tmp_path / "relax", silent)
    assert "closer than 4.00 Å in the training set" in str(outcome.values["uncertain"])
    run = MdConfig(structures=[], time=0.01, every=5, no_stop_uncertainty=True)
    outcome = md_one(crystal, knowing, run, tmp_path / "md", silent)
    assert "at step" in str(outcome.values["uncertain"])
