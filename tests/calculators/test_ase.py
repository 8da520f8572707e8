"""The ASE calculator: physics through it, caching, copies in other processes, refusals."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError

from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.graph import Edges
from tesseral.deploy.modelfile import load_model


@pytest.fixture
def calculator(small_model: Path) -> TesseralCalculator:
    """A fresh float64 calculator on the CPU."""
    return TesseralCalculator(small_model, device="cpu", dtype="float64")


def crystal(repeat: int | tuple[int, int, int] = 1) -> Atoms:
    """Rattled, strained zincblende SiC; its primitive cell is far smaller than the cutoff."""
    atoms = bulk("SiC", "zincblende", a=4.36)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * np.arange(9).reshape(3, 3) / 8), True)
    atoms.rattle(0.05, seed=1)
    return atoms * (repeat if isinstance(repeat, tuple) else (repeat,) * 3)


def slab() -> Atoms:
    """Four layers of Si, periodic in two directions."""
    atoms = fcc111("Si", (2, 2, 3), a=4.5, vacuum=6.0)
    atoms.rattle(0.05, seed=2)
    return atoms


def cluster() -> Atoms:
    """A molecule without a cell, moved away from the origin."""
    atoms = molecule("Si2H6")
    atoms.numbers[atoms.numbers == 1] = 6
    atoms.positions += [-31.0, 7.0, 100.0]
    return atoms


def energy_slope(atoms: Atoms, change: Callable[[Atoms, float], None], step: float) -> float:
    """Central difference of the energy under a change of the atoms."""
    energies = []
    for sign in (-1, 1):
        changed = atoms.copy()
        change(changed, sign * step)
        changed.calc = atoms.calc
        energies.append(changed.get_potential_energy())
    return float(energies[1] - energies[0]) / (2 * step)


STRUCTURES = {"crystal": crystal, "slab": slab, "cluster": cluster}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_forces_are_the_derivative_of_the_energy(kind: str, calculator: TesseralCalculator) -> None:
    atoms = STRUCTURES[kind]()
    atoms.calc = calculator
    forces = atoms.get_forces()
    scale = np.abs(forces).max()
    assert scale > 0.01
    for atom in (0, len(atoms) - 1):
        for axis in range(3):

            def move(changed: Atoms, step: float, where: tuple[int, int] = (atom, axis)) -> None:
                changed.positions[where] += step

            numerical = -energy_slope(atoms, move, 1e-5)
            assert forces[atom, axis] == pytest.approx(numerical, abs=1e-6 * scale)


def test_stress_is_the_derivative_of_the_energy(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    atoms.calc = calculator
    stress = atoms.get_stress()
    assert stress.shape == (6,)
    scale = np.abs(stress).max()
    assert scale > 1e-4
    for component, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):

        def strain(changed: Atoms, step: float, i: int = i, j: int = j) -> None:
            deformation = np.eye(3)
            deformation[i, j] += step / 2
            deformation[j, i] += step / 2
            changed.set_cell(changed.cell.array @ deformation, scale_atoms=True)

        slope = energy_slope(atoms, strain, 1e-5) / atoms.get_volume()
        assert stress[component] == pytest.approx(slope, abs=1e-6 * scale)


def test_stress_is_positive_under_tension(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    atoms.calc = calculator

    def stretch(changed: Atoms, step: float) -> None:
        changed.set_cell(changed.cell.array * (1 + step), scale_atoms=True)

    slope = energy_slope(atoms, stretch, 1e-4) / atoms.get_volume()
    assert atoms.get_stress()[:3].sum() == pytest.approx(slope, rel=1e-4)


def test_supercell_is_extensive(calculator: TesseralCalculator) -> None:
    single, double = crystal(), crystal((2, 1, 2))
    single.calc = double.calc = calculator
    np.testing.assert_allclose(
        double.get_potential_energy(), 4 * single.get_potential_energy(), rtol=1e-12
    )
    np.testing.assert_allclose(double.get_forces()[:2], single.get_forces(), atol=1e-10)
    np.testing.assert_allclose(double.get_stress(), single.get_stress(), atol=1e-12)


def test_atomic_energies_sum_to_the_energy(calculator: TesseralCalculator) -> None:
    atoms = slab()
    atoms.calc = calculator
    energies = atoms.get_potential_energies()
    assert energies.shape == (len(atoms),)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    assert atoms.calc.results["free_energy"] == atoms.get_potential_energy()


def test_isolated_atom_has_its_own_energy_only(
    small_model: Path, calculator: TesseralCalculator
) -> None:
    potential, card = load_model(small_model, dtype="float64")
    empty = torch.zeros(0, dtype=torch.int64)
    vectors = torch.zeros(0, 3, dtype=torch.float64)
    expected = potential(torch.tensor([1]), Edges(vectors, empty, empty))
    atoms = Atoms("Si", calculator=calculator)
    assert atoms.get_potential_energy() == pytest.approx(float(expected[0].detach()), rel=1e-13)
    assert not atoms.get_forces().any()
    far = Atoms(
        "Si2", positions=[[0, 0, 0], [0, 0, card.config.cutoff + 0.1]], calculator=calculator
    )
    assert far.get_potential_energy() == pytest.approx(2 * atoms.get_potential_energy(), rel=1e-14)


def test_float32_agrees_with_float64(small_model: Path) -> None:
    atoms = crystal(2)
    results = []
    for dtype in ("float32", "float64"):
        atoms.calc = TesseralCalculator(small_model, device="cpu", dtype=dtype)
        results.append((atoms.get_potential_energy() / len(atoms), atoms.get_forces()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    np.testing.assert_allclose(
        results[0][1], results[1][1], rtol=0, atol=1e-4 * np.abs(results[1][1]).max()
    )
    assert results[0][1].dtype == np.float64


@pytest.fixture
def default_float64() -> Iterator[None]:
    """Torch's global default dtype as float64 for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_default_dtype_plays_no_part(small_model: Path, default_float64: None) -> None:
    atoms = crystal()
    atoms.calc = TesseralCalculator(small_model, device="cpu")
    inside = atoms.get_forces()
    torch.set_default_dtype(torch.float32)
    atoms.calc = TesseralCalculator(small_model, device="cpu")
    np.testing.assert_array_equal(inside, atoms.get_forces())


def test_atoms_are_not_changed(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    before = atoms.copy()
    atoms.calc = calculator
    atoms.get_stress()
    assert atoms == before


def test_energies_do_not_depend_on_where_atoms_are_wrapped(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    moved = atoms.copy()
    moved.positions += np.array([[3, -2, 1], [0, 5, 0]]) @ atoms.cell.array
    atoms.calc, moved.calc = calculator, copy.deepcopy(calculator)
    assert moved.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


class Counted(TesseralCalculator):
    """Counts its calculations."""

    count = 0

    def calculate(self, *args: object, **kwargs: object) -> None:
        super().calculate(*args, **kwargs)  # type: ignore[arg-type]
        self.count += 1


def test_nothing_is_computed_twice(small_model: Path) -> None:
    atoms = crystal()
    atoms.calc = calculator = Counted(small_model, device="cpu")
    for _ in range(2):
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
        atoms.get_potential_energies()
    atoms.set_initial_magnetic_moments([1.0, 0.0])
    atoms.get_forces()
    assert calculator.count == 1
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()
    assert calculator.count == 2
    atoms.set_cell(atoms.cell * 1.001)
    atoms.get_potential_energy()
    atoms.numbers[0] = 6
    atoms.get_potential_energy()
    assert calculator.count == 4


def test_results_are_the_callers_own(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    atoms.calc = calculator
    forces = atoms.get_forces()
    expected = forces.copy()
    forces *= 0
    np.testing.assert_array_equal(atoms.get_forces(), expected)


def test_from_model_keeps_its_own_copy(small_model: Path) -> None:
    potential, card = load_model(small_model, dtype="float64")
    atoms = crystal()
    atoms.calc = TesseralCalculator.from_model(potential, card)
    before = atoms.get_potential_energy()
    with torch.no_grad():
        potential.embedding.zero_()
    atoms.calc.reset()
    assert atoms.get_potential_energy() == before
    assert potential.embedding.requires_grad


ELSEWHERE = """
import pickle, sys
atoms = pickle.load(sys.stdin.buffer)
atoms.calc.reset()
pickle.dump((atoms.get_potential_energy(), atoms.get_forces()), sys.stdout.buffer)
"""


def test_pickled_calculator_works_in_another_process(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    answer = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=pickle.dumps(atoms),
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    energy_there, forces_there = pickle.loads(answer.stdout)
    assert energy_there == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(forces_there, forces, rtol=0, atol=1e-11)


def test_copies_do_not_share_neighbors(calculator: TesseralCalculator) -> None:
    first, second = crystal(), cluster()
    first.calc, second.calc = calculator, copy.deepcopy(calculator)
    expected = first.get_forces()
    second.get_forces()
    calculator.reset()
    np.testing.assert_array_equal(first.get_forces(), expected)
    assert calculator.neighbors.builds == 1


def test_one_calculator_serves_structures_in_turn(
    small_model: Path, calculator: TesseralCalculator
) -> None:
    for kind in ("crystal", "slab", "cluster", "crystal", "cluster"):
        atoms = STRUCTURES[kind]()
        atoms.calc = calculator
        energy = atoms.get_potential_energy()
        atoms.calc = TesseralCalculator(small_model, device="cpu", dtype="float64", skin=0.0)
        assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (
            Atoms("SiGe", positions=[[0, 0, 0], [0, 0, 2.3]]),
            "Ge is not one of those the model supports: C, Si",
        ),
        (Atoms("X", positions=[[0, 0, 0]]), "is not one of those the model supports"),
        (Atoms("Si2", positions=[[0, 0, 0], [0, np.nan, 2]]), "position of atom 1 is"),
        (Atoms("Si2", positions=[[0, 0, 0], [0, np.inf, 2]]), "position of atom 1 is"),
        (Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0.1]]), r"0\.100 Å apart; atoms overlap"),
        (Atoms("Si2", positions=np.zeros((2, 3))), r"0\.000 Å apart"),
        (Atoms("Si", pbc=True), "cell without volume"),
        (Atoms("Si", cell=[3, 3, 0], pbc=True), "cell without volume"),
        (Atoms("Si", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True), "cell without volume"),
        (Atoms("Si", cell=[3, 3, np.nan], pbc=True), "cell is not finite"),
    ],
)
def test_what_has_no_answer_is_refused(
    atoms: Atoms, message: str, calculator: TesseralCalculator
) -> None:
    atoms.calc = calculator
    for _ in range(2):  # a second question must not be answered from a cache
        with pytest.raises(ValueError, match=message):
            atoms.get_potential_energy()


def test_overlap_within_a_reused_list_is_refused(calculator: TesseralCalculator) -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0.3]], calculator=calculator)
    atoms.get_potential_energy()
    atoms.positions[1, 2] = 0.15
    with pytest.raises(ValueError, match="overlap"):
        atoms.get_potential_energy()
    assert calculator.neighbors.builds == 1
    atoms.positions[1, 2] = 2.3
    assert np.isfinite(atoms.get_potential_energy())


@pytest.mark.parametrize(
    "atoms", [cluster(), Atoms("Si", cell=[5, 5, 5]), Atoms("Si", cell=[3, 0, 0], pbc=[1, 0, 0])]
)
def test_stress_without_a_periodic_cell_is_refused(
    atoms: Atoms, calculator: TesseralCalculator
) -> None:
    atoms.calc = calculator
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError, match="stress needs periodic atoms in a cell"):
        atoms.get_stress()


def test_result_that_is_not_finite_is_refused(small_model: Path) -> None:
    potential, card = load_model(small_model)
    with torch.no_grad():
        potential.embedding.fill_(float("nan"))
    atoms = crystal()
    atoms.calc = TesseralCalculator.from_model(potential, card)
    with pytest.raises(CalculationFailed, match="not finite"):
        atoms.get_forces()
    assert not atoms.calc.results


@pytest.mark.parametrize("skin", [-0.1, float("nan")])
def test_impossible_skin_is_refused(small_model: Path, skin: float) -> None:
    with pytest.raises(ValueError, match="skin is"):
        TesseralCalculator(small_model, skin=skin)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu(small_model: Path) -> None:
    atoms = crystal(2)
    results = []
    for device in ("cpu", "cuda"):
        atoms.calc = TesseralCalculator(small_model, device=device, dtype="float64")
        results.append((atoms.get_forces(), atoms.get_stress()))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-10)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("numbers", lambda old: old[:1], "1 atomic numbers and 2 positions"),
        ("positions", lambda old: old[:1], "2 atomic numbers and 1 positions"),
        ("positions", lambda old: old[:, :2], "positions must have the shape"),
        ("positions", lambda old: old + 0j, "must be real numbers"),
        ("positions", lambda old: old * 1e30, "too far away"),
        ("numbers", lambda old: old + 0.5, "whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    name: str, change: Any, message: str, calculator: TesseralCalculator
) -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]])
    atoms.arrays[name] = change(atoms.arrays[name])
    with pytest.raises(ValueError, match=message):
        calculator.calculate(atoms)


def test_a_cell_with_millions_of_neighbours_is_refused(calculator: TesseralCalculator) -> None:
    atoms = Atoms("Si", cell=[0.02, 0.02, 0.02], pbc=True)
    with pytest.raises(ValueError, match="neighbours each; check the cell"):
        calculator.calculate(atoms)
