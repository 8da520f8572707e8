"""What a structure says of itself: units, energies per atom, stress and virial, charge and spin."""

import numpy as np
import pytest
from ase import Atoms, units

from tesseral.data.labels import LabelKeys, free_energy_difference, states
from tesseral.data.structures import structure_from_atoms
from tesseral.data.units import (
    ENERGY_UNITS,
    FORCE_UNITS,
    STRESS_UNITS,
    declared_units,
    unit_factor,
)


def dimer(**info):
    atoms = Atoms("Si2", positions=[[0, 0, 0], [2, 0, 0]], cell=[5, 5, 5], pbc=True, info=info)
    atoms.arrays["forces"] = np.full((2, 3), 0.1)
    return atoms


@pytest.mark.parametrize(
    "table, name, factor",
    [
        (ENERGY_UNITS, "hartree", units.Hartree),
        (ENERGY_UNITS, "a.u.", units.Hartree),
        (ENERGY_UNITS, "Rydberg", units.Rydberg),
        (FORCE_UNITS, "hartree/bohr", units.Hartree / units.Bohr),
        (FORCE_UNITS, "Ha/a0", units.Hartree / units.Bohr),
        (FORCE_UNITS, "eV/Angstrom", 1.0),
        (FORCE_UNITS, "kcal/mol/Å", units.kcal / units.mol),
        (STRESS_UNITS, "gpa", units.GPa),
        (STRESS_UNITS, "kB", 0.1 * units.GPa),
        (STRESS_UNITS, "eV/Ang**3", 1.0),
        (STRESS_UNITS, "Hartree/bohr^3", units.Hartree / units.Bohr**3),
    ],
)
def test_spellings_of_units(table, name, factor):
    assert unit_factor(table, name) == pytest.approx(factor)


def test_stated_units_are_found():
    info = {"energy-unit": "a", "forces_units": "b", "unit_of_length": "c", "time_unit": "fs"}
    assert declared_units(info) == {"energy": "a", "forces": "b", "length": "c"}
    assert declared_units({"units": "eV, GPa metal"}) == {
        "energy": "eV", "stress": "GPa", "units": "metal"
    }  # fmt: skip


def test_stated_units_are_used():
    stated = {"energy-unit": "hartree", "force-unit": "hartree/bohr", "stress-unit": "GPa"}
    found = structure_from_atoms(dimer(energy=-0.4, stress=np.eye(3), **stated))
    assert found.energy == pytest.approx(-0.4 * units.Hartree)
    np.testing.assert_allclose(found.forces, 0.1 * units.Hartree / units.Bohr)
    np.testing.assert_allclose(found.stress, units.GPa * np.eye(3))


def test_a_given_unit_must_not_contradict_the_stated_one():
    atoms = dimer(energy=-0.4, energy_unit="hartree")
    with pytest.raises(ValueError, match="`energy_unit` is 'eV', but the file states 'hartree'"):
        structure_from_atoms(atoms, LabelKeys(energy_unit="eV"))
    same = structure_from_atoms(atoms, LabelKeys(energy_unit="Ha"))
    assert same.energy == pytest.approx(-0.4 * units.Hartree)


@pytest.mark.parametrize(
    "name, value", [("energy_unit", "cal"), ("units", "metal"), ("force-unit", "N")]
)
def test_unknown_units_are_named(name, value):
    with pytest.raises(ValueError, match=f"{value}.*pass `"):
        structure_from_atoms(dimer(energy=-1.0, **{name: value}))


@pytest.mark.parametrize(
    "info, keys",
    [
        ({"energy_per_atom": -3.0}, {"energy_key": "energy_per_atom"}),
        ({"e_per_atom": -3.0}, {"energy_key": "e_per_atom"}),
        ({"E/atom": -3.0}, {"energy_key": "E/atom"}),
        ({"energy": -3.0, "energy-unit": "eV/atom"}, {}),
        ({"E": -3.0}, {"energy_key": "E", "energy_unit": "eV/atom"}),
        ({"energy_per_atom": -3.0}, {"energy_key": "energy_per_atom", "energy_unit": "eV/atom"}),
    ],
)
def test_energies_per_atom_are_multiplied(info, keys):
    assert structure_from_atoms(dimer(**info), LabelKeys(**keys)).energy == pytest.approx(-6.0)


def test_an_energy_per_atom_is_not_taken_for_a_total_energy():
    with pytest.raises(ValueError, match="'energy_per_atom'.*multiplied by the number of atoms"):
        structure_from_atoms(dimer(energy_per_atom=-3.0))


def test_stress_and_virial_must_agree():
    stress = np.diag([0.01, 0.02, 0.03])
    agree = dimer(energy=-1.0, stress=stress, virial=-125 * stress)
    np.testing.assert_allclose(structure_from_atoms(agree).stress, stress)
    differ = dimer(energy=-1.0, stress=stress, virial=125 * stress)
    with pytest.raises(ValueError, match="stress and -virial/V differ by 9.61 GPa"):
        structure_from_atoms(differ)
    chosen = structure_from_atoms(differ, LabelKeys(stress_key="stress"))
    np.testing.assert_allclose(chosen.stress, stress)


def test_charge_and_spin_are_noted():
    found = states(dimer(charge=1, spin=0.5, multiplicity="singlet", magmom=1.26, energy=3.0))
    assert found == {"charge": "1", "spin": "0.5", "multiplicity": "singlet", "magmom": "1.3"}


def test_a_free_energy_that_is_no_number_has_no_difference():
    atoms = Atoms("H", info={"energy": -1.0, "free_energy": "unknown"})
    assert free_energy_difference(atoms, LabelKeys()) == 0.0
