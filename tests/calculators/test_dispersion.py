"""D3(BJ) added to a model: as dftd3 itself, consistent derivatives, and what is refused."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.neighborlist import neighbor_list
from ase.units import Bohr

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.dispersion import (
    CONTAINED,
    Dispersion,
    choose_dispersion,
    functional_of,
    theory_with,
)
from tesseral.deploy.modelfile import load_model, save_model

reference = pytest.importorskip("dftd3.ase", reason="needs dftd3")


def crystal() -> Atoms:
    """Rattled, sheared SiC."""
    atoms = bulk("SiC", "zincblende", a=4.36)
    shear = np.array([[1.02, 0.03, 0], [0, 0.99, -0.02], [0.01, 0, 1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def slab() -> Atoms:
    """Layers of Si with little vacuum, which does not repeat."""
    atoms = fcc111("Si", (1, 2, 3), a=4.5, vacuum=2.0)
    atoms.rattle(0.1, seed=2)
    return atoms


def wire() -> Atoms:
    """A chain of Si and C, periodic along z, in a box."""
    return Atoms("SiCC", [[3, 3, 0], [3, 3.3, 1.8], [2.6, 3, 3.4]], cell=[6, 6, 5], pbc=[0, 0, 1])


def cluster() -> Atoms:
    """A molecule without a cell."""
    atoms = molecule("Si2H6")
    atoms.numbers[atoms.numbers == 1] = 6
    return atoms


STRUCTURES = {"crystal": crystal(), "slab": slab(), "wire": wire(), "cluster": cluster()}


@pytest.fixture
def calculator(small_model: Path) -> TesseralCalculator:
    """A float64 calculator with dispersion."""
    return TesseralCalculator(small_model, device="cpu", dtype="float64", dispersion="PBE")


@pytest.mark.parametrize("name", STRUCTURES)
def test_model_and_dispersion_are_added(
    name: str, small_model: Path, calculator: TesseralCalculator
) -> None:
    found, model, d3 = (STRUCTURES[name].copy() for _ in range(3))
    found.calc = calculator
    model.calc = TesseralCalculator(small_model, device="cpu", dtype="float64")
    d3.calc = reference.DFTD3(method="pbe", damping="d3bj")
    if d3.cell.rank < 3:
        d3.cell = d3.cell.complete()  # the other calculator divides by the volume
    assert abs(d3.get_potential_energy()) > 0.1
    expected = model.get_potential_energy() + d3.get_potential_energy()
    assert found.get_potential_energy() == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(
        found.get_forces(), model.get_forces() + d3.get_forces(), rtol=0, atol=1e-10
    )
    if found.pbc.any():
        expected = model.get_stress() + d3.get_stress()
        np.testing.assert_allclose(found.get_stress(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", STRUCTURES)
def test_forces_are_derivatives_of_the_energy(name: str, calculator: TesseralCalculator) -> None:
    atoms = STRUCTURES[name].copy()
    atoms.calc = calculator
    forces = atoms.get_forces()
    for atom, axis in ((0, 0), (1, 2)):
        energies = []
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * 1e-4
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / 2e-4
        assert forces[atom, axis] == pytest.approx(slope, abs=1e-6)


def test_stress_is_the_derivative_of_the_energy(small_model: Path) -> None:
    atoms = crystal()
    # Pairs that cross the cutoff change the energy, not its derivative: it must lie in a gap.
    distances = np.sort(neighbor_list("d", atoms, 9.0))
    widest = np.argmax(np.where(distances[:-1] > 6, np.diff(distances), 0))
    assert distances[widest + 1] - distances[widest] > 0.01
    cutoff = float(distances[widest : widest + 2].mean())
    calculator = TesseralCalculator(
        small_model, device="cpu", dtype="float64", dispersion="pbe", dispersion_cutoff=cutoff
    )
    only_model = TesseralCalculator.from_model(calculator.potential, calculator.card)
    atoms.calc = only_model
    without = atoms.get_stress()
    atoms.calc = calculator
    stress = atoms.get_stress()
    assert np.abs(stress - without).max() > 1e-3
    for component, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (-1, 1):
            strain = np.eye(3)
            strain[i, j] += sign * 5e-5
            strain[j, i] += sign * 5e-5 if i != j else 0
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            strained.calc = calculator
            energies.append(strained.get_potential_energy())
        width = 1e-4 if i == j else 2e-4  # a shear changes two components
        slope = (energies[1] - energies[0]) / (width * atoms.get_volume())
        assert stress[component] == pytest.approx(slope, abs=1e-6)


def test_energies_of_atoms_are_not_those_of_the_model_alone(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    atoms.calc = calculator
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()


def evaluate(atoms: Atoms, cutoff: float = 60 * Bohr) -> tuple[float, np.ndarray]:
    """Energy and forces of the correction."""
    found = Dispersion("pbe", cutoff).evaluate(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    )
    return found.energy, found.forces


@pytest.mark.parametrize("vector", [[0, 0, 0], [0, 0, 1], [7, 2, 15]])
def test_vectors_that_do_not_repeat_have_no_effect(vector: list[float]) -> None:
    atoms, other = slab(), slab()
    other.cell[2] = vector
    energy, forces = evaluate(atoms)
    same_energy, same_forces = evaluate(other)
    assert same_energy == pytest.approx(energy, abs=1e-10)
    np.testing.assert_allclose(same_forces, forces, rtol=0, atol=1e-10)


def test_lattices_of_the_same_crystal_agree() -> None:
    atoms, other = crystal(), crystal()
    other.cell[2] += 3 * other.cell[0] - 2 * other.cell[1]
    assert evaluate(other)[0] == pytest.approx(evaluate(atoms)[0], abs=1e-9)
    double = atoms.repeat((1, 2, 1))
    assert evaluate(double)[0] == pytest.approx(2 * evaluate(atoms)[0], abs=1e-9)


def test_cutoff_is_that_of_pairs() -> None:
    pair = Atoms("C2", [[0, 0, 0], [0, 0, 9.0]])
    assert evaluate(pair, 9.1)[0] < 0
    assert evaluate(pair, 8.9)[0] == 0


def test_copies_compute_the_same(calculator: TesseralCalculator) -> None:
    atoms = crystal()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    atoms.calc = pickle.loads(pickle.dumps(calculator))
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)


@pytest.mark.parametrize(
    "theory",
    [
        *("PBE-D3", "VASP PBE + D3(BJ) 520 eV", "pbe-d3bj", "R2SCAN+rVV10", "PBE + vdW-DF"),
        *(
            "ωB97M-D3(BJ)/def2-TZVPPD",
            "wB97M-V",
            "optB88-vdW",
            "PBE + TS",
            "PBE + MBD",
            "r2SCAN-3c",
        ),
        *("B97D", "pw.x PBE + D2", "BEEF-vdW", "PBE+D4", "B97-D"),
    ],
)
def test_level_with_dispersion_gets_no_more(theory: str) -> None:
    with pytest.raises(ValueError, match="contains dispersion; leave `dispersion` out"):
        choose_dispersion("pbe", theory)
    assert choose_dispersion(None, theory) is None


@pytest.mark.parametrize(
    ("theory", "functional"),
    [
        ("PBE", "pbe"),
        ("PBE+U", "pbe"),
        ("VASP PBE + U (3.9 0 eV) 520 eV", "pbe"),
        ("GPAW PBE 600 eV", "pbe"),
        ("R2SCAN", "r2scan"),
        ("VASP PBEsol 520 eV", "pbesol"),
        ("B3LYP/6-311++G(3df,3pd)", "b3lyp"),
        ("FHI-aims pbe0 tight", "pbe0"),
    ],
)
def test_functional_of_the_level_of_theory(theory: str, functional: str) -> None:
    assert not CONTAINED.search(theory)
    chosen = choose_dispersion("auto", theory)
    assert chosen is not None and chosen.functional == functional


@pytest.mark.parametrize("theory", ["", "LDA", "CCSD(T)", "VASP PBE hybrid (AEXX 0.25) 520 eV"])
def test_functional_is_not_guessed(theory: str) -> None:
    with pytest.raises(ValueError, match="name the functional, like `dispersion='pbe'`"):
        functional_of(theory)


def test_what_cannot_be_added_is_refused(small_model: Path) -> None:
    with pytest.raises(ValueError, match="no D3.BJ. parameters for `dispersion='pbbe'`; .*pbesol"):
        TesseralCalculator(small_model, device="cpu", dispersion="PBBE")
    with pytest.raises(ValueError, match="`dispersion_cutoff=9` needs `dispersion`"):
        TesseralCalculator(small_model, device="cpu", dispersion_cutoff=9.0)
    with pytest.raises(ValueError, match="`dispersion_cutoff` is -1.0 Å"):
        Dispersion("pbe", -1.0)


@pytest.mark.parametrize("symbol", ["Am", "Lr", "Og"])
def test_elements_without_parameters_are_refused(symbol: str) -> None:
    with pytest.raises(ValueError, match=f"no parameters for {symbol}, only .* up to Pu"):
        evaluate(Atoms(["C", symbol], [[0, 0, 0], [0, 0, 3]]))


def test_without_dftd3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dftd3.interface", None)
    with pytest.raises(ValueError, match="run: pip install dftd3"):
        choose_dispersion("pbe", "PBE")


def test_the_model_file_names_the_level(small_model: Path, tmp_path: Path) -> None:
    potential, card = load_model(small_model)
    data = {"data": {"train": {"theory": "GPAW PBE 600 eV"}}}
    save_model(tmp_path / "pbe.safetensors", potential, replace(card, training=data))
    calculator = TesseralCalculator(tmp_path / "pbe.safetensors", device="cpu", dispersion="auto")
    assert calculator.theory == "GPAW PBE 600 eV + D3(BJ, pbe)"
    assert "D3(BJ, pbe)" in repr(calculator)
    several = {"data": {"train": {}, "theories": ["PBE", "R2SCAN"]}}
    assert replace(card, training=several).theory == "PBE"
    assert card.theory == theory_with("", None) == ""
