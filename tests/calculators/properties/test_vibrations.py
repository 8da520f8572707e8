"""Vibrations, vacancies, relaxation and supercells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.vibrations import Vibrations as AseVibrations

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import repeats_for_atoms, repeats_for_length, supercell
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.calculators.properties.vacancy import vacancy_energies
from tesseral.calculators.properties.vibrations import vibrations


def water() -> Atoms:
    atoms = molecule("H2O")
    atoms.calc = EMT()
    return relaxed(atoms, fmax=1e-4).atoms


def test_a_diatomic_has_the_frequency_of_its_spring() -> None:
    atoms = Atoms("N2", positions=[(0, 0, 0), (0, 0, 1.0)])
    atoms.calc = MorsePotential(epsilon=1.0, r0=1.0, rho0=6.0)
    found = vibrations(atoms, step=1e-3).frequencies
    spring = 2 * 6.0**2  # eV/Å²
    rate = np.sqrt(spring * 1.602176634e-19 * 1e20 / (14.007 / 2 * 1.66053907e-27))
    assert found == pytest.approx([rate / (2 * np.pi * 2.99792458e10)], rel=1e-4)


def test_frequencies_are_those_of_ase(tmp_path) -> None:
    atoms = water()
    mine = vibrations(atoms, step=0.01)
    theirs = AseVibrations(atoms, name=str(tmp_path / "vib"), delta=0.01)
    theirs.run()
    expected = np.sort(theirs.get_frequencies().real)[-3:]
    assert mine.frequencies == pytest.approx(expected, rel=1e-3)
    assert mine.zero_point_energy == pytest.approx(0.5 * expected.sum() / 8065.544, rel=1e-3)


def test_frequencies_of_the_hessian_are_those_of_differences(stable_model: Path) -> None:
    atoms = Atoms("SiC2", [[0, 0, 0], [0, 0, 1.9], [0, 1.8, 0.3]])
    atoms.calc = TesseralCalculator(stable_model, device="cpu", dtype="float64")
    exact, differences = vibrations(atoms), vibrations(atoms, step=1e-4)
    assert exact.frequencies == pytest.approx(differences.frequencies, rel=1e-5)
    assert exact.asymmetry < 1e-10 < differences.asymmetry


def test_a_step_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="`step` is 0"):
        vibrations(water(), step=0.0)


def test_a_saddle_has_an_imaginary_mode() -> None:
    atoms = Atoms("H3", positions=[(0, 0, 0), (0, 0, 1.3), (0, 0, 2.6)])
    atoms.calc = MorsePotential(epsilon=1.0, r0=1.0, rho0=3.0, rcut1=1.9, rcut2=2.2)
    assert vibrations(atoms).frequencies[0] < -100


def test_a_single_atom_does_not_vibrate() -> None:
    with pytest.raises(ValueError, match="does not vibrate"):
        vibrations(Atoms("H"))


def test_vacancy_energy_is_the_difference_of_energies() -> None:
    crystal = bulk("Al", "fcc", a=3.9943, cubic=True).repeat(2)
    crystal.calc = EMT()
    energy = crystal.get_potential_energy()
    (found,) = vacancy_energies(crystal, {"Al": energy / 32})
    assert found.symbol == "Al" and found.n_atoms == 32
    assert 0.3 < found.relaxed < found.unrelaxed < 1.5
    smaller = crystal.copy()
    del smaller[0]
    smaller.calc = EMT()
    assert found.unrelaxed == pytest.approx(smaller.get_potential_energy() - 31 / 32 * energy)


def test_one_vacancy_of_each_element_needs_its_reservoir() -> None:
    alloy = bulk("Al", "fcc", a=3.9, cubic=True)
    alloy.numbers[0] = 29
    alloy.calc = EMT()
    found = vacancy_energies(alloy, {"Al": 0.0, "Cu": 1.0}, steps=2)
    assert {vacancy.symbol for vacancy in found} == {"Al", "Cu"}
    with pytest.raises(ValueError, match="no chemical potential of Cu"):
        vacancy_energies(alloy, {"Al": 0.0})


def test_relaxation_moves_a_copy() -> None:
    atoms = bulk("Al", "fcc", a=4.1)
    atoms.calc = EMT()
    found = relaxed(atoms, fmax=1e-3)
    assert found.converged and found.max_force < 1e-3
    assert found.atoms.get_volume() < atoms.get_volume() == pytest.approx(4.1**3 / 4)


def test_supercells_are_as_large_as_asked_for() -> None:
    cell = bulk("Al", "fcc", a=4.0)
    height = 4.0 / np.sqrt(3)
    assert repeats_for_length(cell, 2 * height) == (2, 2, 2)
    assert repeats_for_length(cell, 2.01 * height) == (3, 3, 3)
    slab = Atoms("Al", cell=[2, 4, 8], pbc=True)
    assert repeats_for_atoms(slab, 8) == (4, 2, 1)
    slab.calc = EMT()
    assert supercell(slab, (1, 1, 2)).calc is slab.calc
