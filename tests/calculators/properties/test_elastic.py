"""Elastic constants of EMT crystals against independent derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT

from tesseral.calculators.properties.elastic import cubic_constants, elastic_constants
from tesseral.calculators.properties.eos import equation_of_state

A_EMT = 3.99429  # Å, EMT aluminium


@pytest.fixture(scope="module")
def aluminium() -> Atoms:
    atoms = bulk("Al", "fcc", a=A_EMT)
    atoms.calc = EMT()
    return atoms


def test_energy_of_a_strain_gives_the_same_constants(aluminium: Atoms) -> None:
    found = cubic_constants(elastic_constants(aluminium).stiffness)

    def energy(strain: np.ndarray) -> float:
        atoms = aluminium.copy()
        atoms.calc = aluminium.calc
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return float(atoms.get_potential_energy())

    def second(direction: np.ndarray, step: float = 2e-3) -> float:
        rise = energy(step * direction) + energy(-step * direction) - 2 * energy(0 * direction)
        return rise / step**2 / aluminium.get_volume() / units.GPa

    stretch, shear = np.diag([1.0, 0, 0]), np.zeros((3, 3))
    shear[0, 1] = shear[1, 0] = 0.5
    tetragonal = np.diag([1.0, -1.0, 0])  # 2 (C11 - C12)
    assert found["C11"] == pytest.approx(second(stretch), rel=0.02)
    assert found["C44"] == pytest.approx(second(shear), rel=0.02)
    assert 2 * (found["C11"] - found["C12"]) == pytest.approx(second(tetragonal), rel=0.02)


def test_bulk_modulus_is_that_of_the_equation_of_state(aluminium: Atoms) -> None:
    result = elastic_constants(aluminium)
    fit = equation_of_state(aluminium, extent=0.03, fixed_positions=True).fit
    assert result.bulk_modulus == pytest.approx(fit.bulk_modulus, rel=0.03)
    assert (result.eigenvalues > 0).all()
    assert result.asymmetry < 0.5


def test_atoms_relax_within_the_strained_cell() -> None:
    atoms = bulk("Cu", "hcp", a=2.56)
    atoms.calc = EMT()
    clamped = elastic_constants(atoms, steps=0).stiffness
    relaxed = elastic_constants(atoms).stiffness
    assert relaxed[0, 0] < clamped[0, 0] - 0.5


def test_an_unstable_crystal_has_a_negative_eigenvalue() -> None:
    atoms = bulk("Cu", "bcc", a=2.9)
    atoms.calc = EMT()
    assert elastic_constants(atoms).eigenvalues[0] < 0


def test_a_molecule_is_refused() -> None:
    with pytest.raises(ValueError, match="need a crystal"):
        elastic_constants(Atoms("Al"))
