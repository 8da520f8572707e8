"""Where a relaxation ends, its course, and the filter that moves the cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from scipy.linalg import expm

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties import relaxation
from tesseral.calculators.properties.atoms import largest_force, pressure_gpa, vacuum_gaps
from tesseral.calculators.properties.relaxation import (
    CellFilter,
    moving_cell,
    optimizer_for,
    relaxed,
    relaxing,
)

A_EMT = 3.9944  # Å, EMT aluminium


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
    monkeypatch.setattr(relaxation, "CellFilter", lambda atoms, *_: FrechetCellFilter(atoms))
    second = [step.energy for step in relaxing(theirs, fmax=0.01, steps=8)]
    assert first == pytest.approx(second, rel=1e-10)
    np.testing.assert_allclose(ours.positions, theirs.positions, rtol=0, atol=1e-9)


def test_forces_are_computed_once_for_a_structure_and_again_when_it_moves(crystal: Atoms) -> None:
    moving: Any = CellFilter(crystal, (True, True, True))
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


def aluminium(a: float, rattle: float = 0.0) -> Atoms:
    """Cubic aluminium of four atoms with EMT."""
    atoms = bulk("Al", "fcc", a=a, cubic=True)
    atoms.rattle(rattle, seed=1)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("optimizer", ["bfgs", "fire"])
def test_relaxation_finds_the_lattice(optimizer: str) -> None:
    atoms = aluminium(4.1, rattle=0.05)
    pressure, force = pressure_gpa(atoms), largest_force(atoms)
    steps = list(relaxing(atoms, fmax=0.001, steps=500, optimizer=optimizer))
    assert steps[-1].converged
    assert atoms.cell.lengths() == pytest.approx([A_EMT] * 3, abs=2e-3)
    assert abs(pressure_gpa(atoms)) < 0.05 < abs(pressure)
    assert largest_force(atoms) < 0.001 < force
    assert steps[-1].energy < steps[0].energy


def test_fixed_cell_stays_and_the_atoms_given_too() -> None:
    atoms = aluminium(4.1, rattle=0.05)
    before = atoms.copy()
    end = relaxed(atoms, fmax=0.01, cell="fixed")
    assert end.converged
    np.testing.assert_array_equal(end.atoms.cell.array, atoms.cell.array)
    assert pressure_gpa(end.atoms) < -1
    assert atoms == before


def test_relaxation_leaves_the_vacuum_of_a_slab() -> None:
    atoms = fcc111("Al", (1, 1, 4), a=4.1, vacuum=6.0)
    atoms.calc = EMT()
    before = atoms.cell.lengths()
    np.testing.assert_array_equal(relaxed(atoms, fmax=0.02).atoms.cell.lengths(), before)
    for turned in (False, True):
        if turned:  # the vacuum along a direction that is not an axis
            atoms.rotate(40, (1, 2, 3), rotate_cell=True)
        lengths = relaxed(atoms, fmax=0.02, steps=500, cell="in-plane").atoms.cell.lengths()
        assert lengths[2] == pytest.approx(before[2], rel=1e-12)
        assert lengths[0] < before[0] - 0.02


def test_the_width_of_vacuum() -> None:
    slab = fcc111("Al", (1, 1, 6), a=4.0, vacuum=4.0, periodic=True)
    assert vacuum_gaps(slab)[2] == pytest.approx(8.0)
    assert vacuum_gaps(bulk("Al", "fcc", a=4.0)) == pytest.approx([4 / 3**0.5] * 3)
    slab.pbc[2] = False
    assert vacuum_gaps(slab)[2] == 0


def test_which_cells_move() -> None:
    crystal = bulk("Al", "fcc", a=4.1, cubic=True)
    assert moving_cell(crystal).vectors == (True, True, True)
    slab = fcc111("Al", (2, 2, 3), a=4.1, vacuum=6.0, periodic=True)
    assert moving_cell(slab) == ((False, False, False), "vacuum of 12.0 Å along c")
    assert moving_cell(slab, "in-plane").vectors == (True, True, False)
    assert moving_cell(slab, "free").vectors == (True, True, True)
    layers = graphene("C2", vacuum=1.7)  # 3.4 Å between layers, as in graphite
    layers.pbc = True
    assert moving_cell(layers).vectors == (True, True, True)
    box = molecule("H2O", vacuum=5.0, pbc=True)
    assert moving_cell(box).vectors == (False, False, False)
    assert moving_cell(box, "in-plane").vectors == (False, False, False)
    crystal.set_constraint(FixAtoms([0]))
    assert moving_cell(crystal).kept == "it has constraints"


def test_the_optimizer_of_many_atoms_needs_no_matrix() -> None:
    crystal = bulk("Al", "fcc", a=4.1, cubic=True)
    assert optimizer_for(crystal) == "bfgs"
    assert optimizer_for(crystal * (3, 3, 3)) == "lbfgs"
    assert optimizer_for(crystal, "fire") == "fire"


def test_unfinished_relaxation_says_so() -> None:
    end = relaxed(aluminium(4.2), steps=1, fmax=1e-8)
    assert (end.converged, end.steps) == (False, 1)


def test_a_molecule_without_a_cell_relaxes(stable_model: Path) -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.4]])
    atoms.calc = TesseralCalculator(stable_model)
    end = relaxed(atoms, fmax=0.01)
    assert end.converged and end.max_force < 0.01 < largest_force(atoms)


def stretched_pair() -> Atoms:
    """Two atoms so far apart that the energy bends down along their distance."""
    return Atoms("Ar2", [[0, 0, 0], [0.1, 0.2, 1.8]], calculator=MorsePotential(rcut1=4, rcut2=5))


@pytest.mark.parametrize(
    ("make", "diagonalises"), [(lambda: aluminium(4.1, rattle=0.3), False), (stretched_pair, True)]
)
def test_the_steps_are_those_of_bfgs_of_ase(
    make: Callable[[], Atoms], diagonalises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = make(), make()
    filtered: Any = CellFilter(theirs, (True, True, True)) if theirs.pbc.all() else theirs
    expected = [
        (theirs.get_potential_energy() / len(theirs), converged)
        for converged in BFGS(filtered, logfile=None).irun(0.01, 12)
    ]
    calls = []
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: calls.append(1) or eigh(matrix))
    found = list(relaxing(ours, fmax=0.01, steps=12, optimizer="bfgs"))
    assert [step.energy for step in found] == pytest.approx([one for one, _ in expected], abs=1e-9)
    assert [step.converged for step in found] == [converged for _, converged in expected]
    assert bool(calls) == diagonalises


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.7, 20.0])
def test_exponentials(size: float) -> None:
    matrix = size * np.random.default_rng(0).normal(size=(6, 6))
    expected = expm(matrix)
    error = np.abs(relaxation.exponential(matrix) - expected).max()
    assert error < 1e-12 * np.abs(expected).max()
