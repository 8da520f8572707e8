"""Crystals that are relaxed together take the steps that they would take alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties import relaxing_together as module
from tesseral.calculators.properties.relaxation import RelaxStep, relaxing
from tesseral.calculators.properties.relaxing_together import (
    Event,
    can_relax_together,
    relaxing_together,
)


@pytest.fixture(scope="module")
def calculator(stable_model: Path) -> TesseralCalculator:
    return TesseralCalculator(stable_model, dtype="float64")


def crystals() -> list[Atoms]:
    """Strained and rattled SiC of two and eight atoms."""
    made = []
    for seed, cubic in enumerate((True, False, True, False)):
        atoms = bulk("SiC", "zincblende", a=5.42, cubic=cubic)
        strain = np.random.default_rng(seed).normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.rattle(0.08, seed=seed)
        made.append(atoms)
    return made


def alone(
    atoms: Atoms, calculator: TesseralCalculator, cell: str, pressure: float
) -> list[RelaxStep]:
    atoms.calc = calculator
    return list(relaxing(atoms, fmax=0.02, steps=60, cell=cell, pressure=pressure))


@pytest.mark.parametrize(
    ("cell", "pressure"), [("free", 0.0), ("free", 5.0), ("fixed", 0.0), ("in-plane", 0.0)]
)
def test_the_course_of_each_is_that_alone(
    cell: str, pressure: float, calculator: TesseralCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATOMS", 12)  # the last ones enter as others end
    together = crystals()
    events = list(
        relaxing_together(together, calculator, fmax=0.02, steps=60, cell=cell, pressure=pressure)
    )
    for number, atoms in enumerate(crystals()):
        steps = [event.step for event in events if event.number == number]
        expected = alone(atoms, calculator, cell, pressure)
        assert [step.number for step in steps] == list(range(len(expected)))
        assert steps[-1].converged and len(steps) > 5
        found = [(step.energy, step.max_force) for step in steps]
        wanted = [(step.energy, step.max_force) for step in expected]
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(together[number].positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(together[number].cell.array, atoms.cell.array, atol=1e-7)


def test_the_results_are_those_of_the_calculator(calculator: TesseralCalculator) -> None:
    together = crystals()[:2]
    last: dict[int, Event] = {}
    for event in relaxing_together(together, calculator, fmax=0.1, steps=5):
        last[event.number] = event
    for number, atoms in enumerate(together):
        calculator.calculate(atoms)
        for name, value in last[number].results.items():
            np.testing.assert_allclose(value, calculator.results[name], atol=1e-9)


@pytest.mark.parametrize("fault", ["overlap", "neighbours each"])
def test_an_error_ends_one_of_them(fault: str, calculator: TesseralCalculator) -> None:
    structures = crystals()
    if fault == "overlap":
        structures[1].positions[1] = structures[1].positions[0]
    else:
        structures[1] = bulk("Si", a=0.05)
    events = list(relaxing_together(structures, calculator, fmax=0.1, steps=40))
    errors = [(event.number, str(event.error)) for event in events if event.error is not None]
    assert [number for number, _ in errors] == [1] and fault in errors[0][1]
    ended = {event.number for event in events if event.step is not None and event.ended}
    assert ended == {0, 2, 3}


def test_one_that_leaves_all_numbers_ends_alone(
    calculator: TesseralCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = module._Course.move

    def broken(course: module._Course, forces: np.ndarray) -> None:
        move(course, forces)
        if course.number == 1:
            course.places[:] = np.nan

    monkeypatch.setattr(module._Course, "move", broken)
    events = relaxing_together(crystals(), calculator, fmax=0.1, steps=40, cell="free")
    ended = {event.number: event for event in events if event.ended}
    assert "not finite" in str(ended[1].error)
    assert all(ended[number].step.converged for number in (0, 2, 3))


def test_which_relaxations_can_be_together(calculator: TesseralCalculator) -> None:
    crystal = crystals()[0]
    assert can_relax_together(crystal, calculator)
    assert not can_relax_together(crystal, calculator, "fire")
    crystal.set_constraint(FixAtoms([0]))
    assert not can_relax_together(crystal, calculator)
    slab = crystals()[0]
    slab.pbc = (True, True, False)
    assert not can_relax_together(slab, calculator)
