"""The course of a relaxation and the filter that moves the cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties import relaxation
from tesseral.calculators.properties.relaxation import CellFilter, relaxing


@pytest.fixture
def crystal(stable_model: Path) -> Atoms:
    """Rattled SiC of 64 atoms with a calculator."""
    atoms = bulk("SiC", "zincblende", a=5.42, cubic=True) * (2, 2, 2)
    atoms.rattle(0.08, seed=0)
    atoms.calc = TesseralCalculator(stable_model, dtype="float64")
    return atoms


def test_the_course_is_that_of_the_filter_of_ase(
    crystal: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = crystal[:8]
    small.set_cell(crystal.cell.array / 2)
    small.wrap()
    small.calc = crystal.calc
    ours, theirs = small.copy(), small.copy()
    ours.calc = theirs.calc = small.calc
    first = [step.energy for step in relaxing(ours, fmax=0.01, steps=8)]
    monkeypatch.setattr(relaxation, "CellFilter", FrechetCellFilter)
    second = [step.energy for step in relaxing(theirs, fmax=0.01, steps=8)]
    assert first == pytest.approx(second, rel=1e-10)
    np.testing.assert_allclose(ours.positions, theirs.positions, rtol=0, atol=1e-9)


def test_forces_are_computed_once_for_a_structure_and_again_when_it_moves(crystal: Atoms) -> None:
    moving: Any = CellFilter(crystal)
    first = moving.get_forces()
    first[:] = 0.0  # what the caller does with them does not matter
    assert np.abs(moving.get_forces()).max() > 0.1
    crystal.positions[0, 0] += 0.1
    moved = moving.get_forces()
    crystal.set_cell(crystal.cell.array * 1.01, scale_atoms=True)
    assert np.abs(moving.get_forces() - moved).max() > 1e-3


def test_a_cell_that_has_hardly_moved_gives_no_warning(crystal: Atoms) -> None:
    steps = list(relaxing(crystal, fmax=0.02, steps=3, optimizer="lbfgs"))  # warnings are errors
    assert steps[-1].energy < steps[0].energy


def test_a_wrong_setting_is_refused_at_once(crystal: Atoms) -> None:
    with pytest.raises(ValueError, match="optimizer 'newton'; use positive numbers and one of"):
        relaxing(crystal, fmax=0.1, steps=3, optimizer="newton")
