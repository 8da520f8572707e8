"""Steps of one calculation must fit together, whichever reader returned them."""

from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tesseral.data.sources.aims import read_aims
from tesseral.data.sources.opening import read_frames
from tesseral.data.sources.trajectory import SuspectSteps, check_steps

AIMS = Path(__file__).parent / "files" / "aims_md.out"
STIFFNESS = 10.0  # eV/Å²


def spring(number, shift=0):
    """Steps of a stretched spring; energies and forces of the step that is ``shift`` later."""
    steps = []
    for step in range(number):
        places = [0.05 * np.sin(1.3 * (step + later)) + 0.01 * step for later in (0, shift)]
        atoms = Atoms("H2", positions=[[0, 0, 0], [1 + places[0], 0, 0]], cell=[9] * 3, pbc=True)
        force = STIFFNESS * places[1]
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=0.5 * STIFFNESS * places[1] ** 2,
            forces=[[force, 0, 0], [-force, 0, 0]],
        )
        steps.append(atoms)
    return steps


def test_steps_that_fit_pass():
    assert len(list(check_steps(iter(spring(8)), "x"))) == 8


def test_labels_of_other_steps_are_found():
    with pytest.raises(SuspectSteps, match="the reader .* do not change as the forces say"):
        list(check_steps(iter(spring(8, shift=2)), "the reader"))


def test_gradients_in_place_of_forces_are_found():
    steps = spring(8)
    for atoms in steps:
        atoms.calc.results["forces"] *= -1
    with pytest.raises(SuspectSteps, match="forces"):
        list(check_steps(iter(steps), "x"))


def test_a_lost_cell_is_found():
    steps = spring(4)
    steps[2].cell, steps[2].pbc = np.zeros((3, 3)), False
    with pytest.raises(SuspectSteps, match="step 1 with .* a cell, and step 2 .* no cell"):
        list(check_steps(iter(steps), "x"))


def test_a_repeated_structure_is_found():
    steps = spring(4)
    steps[3].positions = steps[1].positions
    with pytest.raises(SuspectSteps, match="the same positions for the steps 1 and 3"):
        list(check_steps(iter(steps), "x"))


def test_the_readings_of_ase_are_checked():
    with pytest.warns(FutureWarning):
        steps = ase.io.read(AIMS, ":", format="aims-output")
    with pytest.raises(SuspectSteps):
        list(check_steps(iter(steps), "x"))


def test_aims_dynamics_are_read():
    left_out = Counter()
    steps = list(check_steps(read_aims(str(AIMS), left_out), "x"))
    assert [atoms.positions[0, 0] for atoms in steps] == [2.8, 2.77, 2.74]
    energies = [atoms.calc.results["energy"] for atoms in steps]
    assert energies == [-2078.47, -2078.482, -2078.503]
    assert all(atoms.pbc.all() and atoms.cell.volume == pytest.approx(64) for atoms in steps)
    assert steps[1].calc.results["forces"][1, 0] == 1.35
    assert not left_out.total()


def test_an_aims_step_without_its_structure_is_left_out(tmp_path):
    text = AIMS.read_text().partition("  | Time step number          :        2")[0]
    (tmp_path / "aims.out").write_text(text)
    left_out = Counter()
    assert len(list(read_aims(str(tmp_path / "aims.out"), left_out))) == 2
    assert left_out.total() == 1


def test_calculations_start_from_the_right_step():
    (atoms,) = read_frames(AIMS, "-1")
    assert atoms.positions[0, 0] == 2.74 and atoms.pbc.all()


def test_an_aims_cycle_that_was_repeated_is_no_step(tmp_path):
    head, energies, tail = AIMS.read_text().partition("  | Total energy uncorrected")
    before = head.replace("cycle converged", "cycle not yet converged - restarting mixer to try")
    again = "          Begin self-consistency loop: Re-initialization.\n"
    text = before + energies + tail.partition("  Advancing")[0] + again
    rest = head.rpartition("Initialization.")[2] + energies + tail
    (tmp_path / "aims.out").write_text(text + rest)
    left_out = Counter()
    steps = list(read_aims(str(tmp_path / "aims.out"), left_out))
    assert [atoms.positions[0, 0] for atoms in steps] == [2.8, 2.77, 2.74]
    assert not left_out.total()


@pytest.mark.parametrize("fixed", [False, True])
def test_aims_forces_that_constraints_have_changed_are_not_taken(tmp_path, fixed):
    text = AIMS.read_text().replace(
        "forces cleaned", "forces were cleaned, then constraints applied"
    )
    mark = "  Found relaxation constraint for atom      1: All coordinates fixed.\n"
    text = text.replace("  Input geometry:\n", mark * fixed + "  Input geometry:\n")
    (tmp_path / "aims.out").write_text(text)
    left_out = Counter()
    steps = list(read_aims(str(tmp_path / "aims.out"), left_out))
    assert (len(steps), left_out.total()) == ((0, 3) if fixed else (3, 0))
