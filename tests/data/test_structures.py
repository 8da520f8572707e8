import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from tesseral.data.labels import LabelKeys, unread_labels
from tesseral.data.structures import atoms_from_structure, make_structure, structure_from_atoms
from tesseral.data.units import stress_tensor

FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
STRESS = np.array([[1.0, 0.6, 0.5], [0.6, 2.0, 0.4], [0.5, 0.4, 3.0]]) * 0.01
VOIGT = np.array([1.0, 2.0, 3.0, 0.4, 0.5, 0.6]) * 0.01  # ASE's order


def dimer(pbc=True, **info):
    atoms = Atoms("CSi", positions=[[0, 0, 0], [1.5, 1.5, 1.5]], cell=[4, 5, 6], pbc=pbc)
    atoms.info.update(info)
    return atoms


def with_calculator(atoms, **results):
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def read_extxyz(tmp_path, header, columns=""):
    path = tmp_path / "a.extxyz"
    forces = "" if not columns else " 0.1 0.2 0.3"
    path.write_text(
        f'1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T" Properties=species:S:1:pos:R:3{columns} '
        f"{header}\nC 0 0 0{forces}\n"
    )
    return ase.io.read(path)


def test_finds_labels_that_ase_moved_into_a_calculator(tmp_path):
    atoms = read_extxyz(
        tmp_path, 'energy=-7.5 stress="1 6 5 6 2 4 5 4 3" config_type=bulk', ":forces:R:3"
    )
    assert "energy" not in atoms.info and "forces" not in atoms.arrays  # the trap
    structure = structure_from_atoms(atoms)
    assert structure.energy == -7.5
    assert structure.forces.tolist() == [[0.1, 0.2, 0.3]]
    assert structure.stress[1, 2] == 4.0
    assert structure.config_type == "bulk"


@pytest.mark.parametrize("prefix", ["REF_", "dft_", "DFT_"])
def test_finds_labels_under_well_known_names(prefix):
    atoms = dimer(**{f"{prefix}energy": -3.0, f"{prefix}stress": VOIGT})
    atoms.arrays[f"{prefix}forces"] = FORCES
    structure = structure_from_atoms(atoms)
    assert structure.energy == -3.0
    np.testing.assert_array_equal(structure.forces, FORCES)
    np.testing.assert_array_equal(structure.stress, STRESS)


def test_keys_name_labels_anywhere():
    atoms = with_calculator(dimer(e=-3.0), energy=99.0, forces=9 * FORCES, stress=VOIGT)
    atoms.arrays["f"] = FORCES
    structure = structure_from_atoms(
        atoms, LabelKeys(energy_key="e", forces_key="f", stress_key="stress")
    )
    assert structure.energy == -3.0
    np.testing.assert_array_equal(structure.forces, FORCES)
    np.testing.assert_array_equal(structure.stress, STRESS)


def test_a_key_that_ase_moved_is_found():
    atoms = with_calculator(dimer(), energy=-1.0, forces=FORCES)
    structure = structure_from_atoms(atoms, LabelKeys(energy_key="energy", forces_key="forces"))
    assert structure.energy == -1.0
    np.testing.assert_array_equal(structure.forces, FORCES)


def test_a_requested_key_that_is_absent_is_an_error_that_lists_what_is_there():
    atoms = with_calculator(dimer(my_energy=-1.0), forces=FORCES)
    with pytest.raises(ValueError, match="'nope' .* info: my_energy.*calculator: forces"):
        structure_from_atoms(atoms, LabelKeys(energy_key="nope"))


def test_energy_is_preferred_to_free_energy_unless_asked_for():
    atoms = with_calculator(dimer(), energy=-1.0, free_energy=-1.1)
    assert structure_from_atoms(atoms).energy == -1.0
    assert structure_from_atoms(atoms, LabelKeys(energy_key="free_energy")).energy == -1.1


def test_free_energy_alone_is_the_energy():
    assert structure_from_atoms(with_calculator(dimer(), free_energy=-1.1)).energy == -1.1


def test_candidates_that_disagree_are_refused():
    atoms = with_calculator(dimer(REF_energy=-2.0), energy=-1.0)
    with pytest.raises(ValueError, match="disagree.*`energy_key`"):
        structure_from_atoms(atoms)
    atoms = with_calculator(dimer(), forces=FORCES)
    atoms.arrays["REF_forces"] = FORCES + 1e-3
    with pytest.raises(ValueError, match="disagree.*`forces_key`"):
        structure_from_atoms(atoms)


def test_candidates_that_agree_are_fine():
    assert structure_from_atoms(with_calculator(dimer(REF_energy=-1.0), energy=-1.0)).energy == -1.0


def test_forces_under_a_strange_name_are_never_lost_silently():
    atoms = dimer(energy=-1.0)
    atoms.arrays["qm_force_vectors"] = FORCES
    with pytest.raises(ValueError, match="`forces_key='qm_force_vectors'`"):
        structure_from_atoms(atoms)
    structure = structure_from_atoms(atoms, LabelKeys(optional=("forces",)))
    assert np.isnan(structure.forces).all()


@pytest.mark.parametrize(
    "info, option", [({"E_energy": -1.0}, "`energy_key"), ({"virial_x": VOIGT}, "`stress_key")]
)
def test_other_labels_under_strange_names_are_not_lost_either(info, option):
    with pytest.raises(ValueError, match=option):
        structure_from_atoms(dimer(**info))


def test_labels_beside_the_known_ones_are_reported():
    atoms = with_calculator(dimer(mace_energy=-1.1), energy=-1.0, forces=FORCES)
    atoms.arrays["mace_forces"] = FORCES
    assert unread_labels(atoms, LabelKeys()) == ["mace_energy", "mace_forces"]


def test_constraints_leave_the_forces_alone():
    atoms = dimer()
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=FORCES)
    assert (atoms.get_forces()[0] == 0).all()  # the trap
    np.testing.assert_array_equal(structure_from_atoms(atoms).forces, FORCES)


def test_labels_of_moved_atoms_are_refused():
    atoms = with_calculator(dimer(), energy=-1.0)
    atoms.positions[0] += 0.1
    with pytest.raises(ValueError, match="positions changed"):
        structure_from_atoms(atoms)


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_no_stress_without_a_volume(pbc):
    structure = structure_from_atoms(with_calculator(dimer(pbc), energy=0.0, stress=VOIGT))
    assert np.isnan(structure.stress).all()


def test_a_molecule_keeps_its_cell_but_stays_a_molecule():
    structure = structure_from_atoms(dimer(False))
    assert structure.cell[2, 2] == 6
    assert not structure.pbc.any()


def test_units_and_signs_are_converted():
    atoms = dimer(energy=1.0, stress=[10, 20, 30, 4, 5, 6])
    atoms.arrays["forces"] = np.ones((2, 3))
    keys = LabelKeys(
        energy_unit="Ha",
        forces_unit="Ha/Bohr",
        stress_unit="kbar",
        stress_sign=-1,
        stress_order="vasp",
    )
    structure = structure_from_atoms(atoms, keys)
    assert structure.energy == pytest.approx(27.211386, abs=1e-5)
    assert structure.forces[0, 0] == pytest.approx(51.42207, abs=1e-4)
    kbar = 0.1 / 160.21766208  # eV/Å³
    expected = -kbar * np.array([[10, 4, 6], [4, 20, 5], [6, 5, 30]])
    np.testing.assert_allclose(structure.stress, expected, rtol=1e-6)


def test_a_virial_becomes_a_stress():
    virial = -STRESS * 4 * 5 * 6
    for atoms, keys in (
        (dimer(virial=virial), LabelKeys()),
        (dimer(W=virial.ravel()), LabelKeys(virial_key="W")),
        (dimer(W=1000 * virial.ravel()), LabelKeys(virial_key="W", energy_unit="meV")),
    ):
        np.testing.assert_allclose(structure_from_atoms(atoms, keys).stress, STRESS, rtol=1e-12)


def test_the_order_does_not_concern_calculators():
    atoms = with_calculator(dimer(), stress=VOIGT)
    structure = structure_from_atoms(atoms, LabelKeys(stress_order="vasp"))
    np.testing.assert_array_equal(structure.stress, STRESS)


def test_voigt_orders():
    tensor = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    for order, values in {
        "ase": [1, 2, 3, 4, 5, 6],
        "lammps": [1, 2, 3, 6, 5, 4],
        "vasp": [1, 2, 3, 6, 4, 5],
    }.items():
        np.testing.assert_array_equal(stress_tensor(values, order), tensor)


@pytest.mark.parametrize(
    "wrong",
    [
        {"energy_unit": "cal"},
        {"stress_unit": "psi"},
        {"stress_sign": 2},
        {"stress_order": "mystery"},
        {"stress_key": "s", "virial_key": "v"},
        {"optional": ("dipole",)},
    ],
)
def test_refuses_wrong_keys(wrong):
    with pytest.raises(ValueError):
        LabelKeys(**wrong)


def test_forces_of_a_wrong_shape_are_refused():
    atoms = dimer()
    atoms.info["forces"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        structure_from_atoms(atoms)


def test_round_trip_through_ase(make_structures):
    structure = make_structures(1)[0]
    back = structure_from_atoms(atoms_from_structure(structure))
    assert back.energy == structure.energy
    np.testing.assert_array_equal(back.forces, structure.forces)
    np.testing.assert_array_equal(back.stress, structure.stress)
    np.testing.assert_array_equal(back.positions, structure.positions)
    assert (back.config_type, back.group) == (structure.config_type, structure.group)


def test_missing_labels_stay_missing_through_ase():
    back = structure_from_atoms(atoms_from_structure(make_structure([1, 1], np.eye(3)[:2])))
    assert np.isnan(back.energy) and np.isnan(back.forces).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"numbers": []}, "no atoms"),
        ({"numbers": [0, 1]}, "atomic numbers"),
        ({"positions": [[0, 0, 0]]}, "shape"),
        ({"positions": [[0, 0, np.nan], [1, 1, 1]]}, "not finite"),
        ({"cell": np.zeros((3, 3)), "pbc": [True] * 3}, "no cell vector"),
        ({"cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]], "pbc": [True] * 3}, "no volume"),
        ({"forces": [[np.inf, 0, 0], [0, 0, 0]]}, "infinite"),
    ],
)
def test_refuses_what_is_no_structure(change, message):
    values = {"numbers": [6, 6], "positions": [[0, 0, 0], [1, 1, 1]], **change}
    with pytest.raises(ValueError, match=message):
        make_structure(**values)
