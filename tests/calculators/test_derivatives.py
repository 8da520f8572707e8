"""Hessian and heat flux through the ASE calculator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.dispersion import Dispersion


@pytest.fixture
def calculator(small_model: Path) -> TesseralCalculator:
    """A fresh float64 calculator on the CPU."""
    return TesseralCalculator(small_model, device="cpu", dtype="float64")


def rattled(atoms: Atoms, calculator: TesseralCalculator) -> Atoms:
    """The atoms, displaced, with the calculator."""
    atoms.rattle(0.05, seed=1)
    atoms.calc = calculator
    return atoms


def slab() -> Atoms:
    """Three layers of Si, periodic in two directions; the lowest is fixed."""
    atoms = fcc111("Si", (2, 1, 3), a=4.5, vacuum=6.0)
    atoms.set_constraint(FixAtoms([0, 1]))
    return atoms


STRUCTURES = {
    "primitive cell": bulk("SiC", "zincblende", a=4.36),
    "slab with fixed atoms": slab(),
    "molecule": Atoms("SiC2", [[0, 0, 0], [0, 0, 1.9], [0, 1.8, 0.3]]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_hessian_is_the_derivative_of_the_forces(name: str, calculator: TesseralCalculator) -> None:
    atoms = rattled(STRUCTURES[name].copy(), calculator)
    found = calculator.get_hessian(atoms)
    scale = np.abs(found).max()
    np.testing.assert_allclose(found, found.T, atol=1e-11 * scale)
    for number, row in enumerate(found):
        sides = []
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.calc = calculator
            moved.positions[number // 3, number % 3] += sign * 1e-5
            sides.append(moved.get_forces(apply_constraint=False).ravel())
        np.testing.assert_allclose(row, (sides[0] - sides[1]) / 2e-5, atol=1e-7 * scale)


def test_rows_of_chosen_atoms(calculator: TesseralCalculator) -> None:
    atoms = rattled(slab(), calculator)
    whole = calculator.get_hessian(atoms).reshape(6, 3, 6, 3)
    found = calculator.get_hessian(atoms, [5, 2])
    np.testing.assert_allclose(found, whole[[5, 2]].reshape(6, 18), atol=1e-10)
    thin = calculator.get_hessian(atoms, [5, 2], sparse=True)
    np.testing.assert_allclose(thin.toarray(), found, atol=1e-10)
    for wrong in ([6], [-1], [0.5]):
        with pytest.raises(ValueError, match="must be from 0 to 5"):
            calculator.get_hessian(atoms, wrong)


def test_heat_flux_is_the_motion_of_the_energy(calculator: TesseralCalculator) -> None:
    atoms = molecule("Si2H6")
    atoms.numbers[atoms.numbers == 1] = 6
    rattled(atoms, calculator)
    atoms.set_velocities(np.random.default_rng(0).normal(0, 0.1, (8, 3)))
    masses, velocities = atoms.get_masses(), atoms.get_velocities()
    acceleration = atoms.get_forces() / masses[:, None]
    step, centres = 1e-4, []
    for sign in (-1, 1):
        moved = atoms.copy()
        moved.calc = calculator
        moved.positions += sign * step * velocities + 0.5 * step**2 * acceleration
        speeds = velocities + sign * step * acceleration
        energies = moved.get_potential_energies() + 0.5 * masses * (speeds**2).sum(1)
        centres.append(energies @ moved.positions)
    expected = (centres[1] - centres[0]) / (2 * step) * units.fs
    found = calculator.get_heat_flux(atoms)
    assert np.abs(found.exchanged).max() > 1e-3
    np.testing.assert_allclose(found.total, expected, atol=1e-6 * np.abs(expected).max())


def test_heat_flux_grows_with_the_cell(calculator: TesseralCalculator) -> None:
    atoms = rattled(bulk("SiC", "zincblende", a=4.36), calculator)
    atoms.set_velocities(np.random.default_rng(0).normal(0, 0.1, (2, 3)))
    small, large = (calculator.get_heat_flux(cell) for cell in (atoms, atoms.repeat((2, 1, 3))))
    np.testing.assert_allclose(large.exchanged, 6 * small.exchanged, rtol=1e-8)
    np.testing.assert_allclose(large.carried, 6 * small.carried, rtol=1e-8)


def test_dispersion_is_refused(calculator: TesseralCalculator) -> None:
    pytest.importorskip("dftd3", reason="needs dftd3")
    calculator.dispersion = Dispersion("pbe")
    for method in (calculator.get_hessian, calculator.get_heat_flux):
        with pytest.raises(ValueError, match=r"`get_\w+` is that of the model alone"):
            method(rattled(bulk("SiC", "zincblende", a=4.36), calculator))
