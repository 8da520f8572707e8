"""npz files, and HDF5 files of other programs."""

from collections import Counter

import h5py
import numpy as np
import pytest
from ase import units
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, STRESS, VIRIAL, assert_read

from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.sources.array_files import read_hdf5, read_npz
from tesseral.data.store.read import open_store

KCAL = units.kcal / units.mol
METRIC = {"length_unit": "A", "energy_unit": "eV"}
THREE = np.ones((3, 1, 1))  # as many structures


def npz(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return list(arrays)


def read(folder, **options):
    name = next(folder.glob("a.*"))
    reader = read_npz if name.suffix == ".npz" else read_hdf5
    return list(reader(str(name), Counter(), **options))


def test_sgdml_with_its_units(tmp_path):
    npz(
        tmp_path,
        R=POSITIONS * THREE,
        z=np.array([14, 8], dtype=np.uint8),
        E=np.full((3, 1), ENERGY / KCAL),
        F=FORCES / KCAL * THREE,
        lattice=CELL.T,  # vectors are columns
        r_unit="Ang",
        e_unit="kcal/mol",
        type="d",
    )
    frames = read(tmp_path)
    assert len(frames) == 3
    assert_read(frames[2], stress=False)


def test_rmd17_whose_units_must_be_given(tmp_path):
    npz(
        tmp_path,
        coords=POSITIONS * THREE,
        nuclear_charges=np.array([14, 8]),
        energies=np.full(3, ENERGY / KCAL),
        forces=FORCES / KCAL * THREE,
    )
    with pytest.raises(ValueError, match=r"give `length_unit` and `energy_unit`. .*kcal/mol"):
        read(tmp_path)
    frames = read(tmp_path, length_unit="A", energy_unit="kcal/mol")
    assert_read(frames[0], stress=False, periodic=False)


@pytest.mark.parametrize("label, values", [("virial", VIRIAL), ("stress", STRESS)])
def test_cells_stresses_and_atoms_that_are_padded(tmp_path, label, values):
    pad = ((0, 0), (1, 0), (0, 0))
    npz(
        tmp_path,
        positions=np.pad(POSITIONS * THREE, pad),
        atomic_numbers=np.tile([0, 14, 8], (3, 1)),
        energy=np.full(3, ENERGY),
        forces=np.pad(FORCES * THREE, pad),
        cell=CELL * THREE,
        pbc=np.ones((3, 3), dtype=bool),
        **{label: values * THREE},
    )
    sign = {"stress_unit": "eV/A^3", "stress_sign": 1} if label == "stress" else {}
    for atoms in read(tmp_path, **METRIC, **sign):
        assert_read(atoms)
    if label == "stress":
        with pytest.raises(ValueError, match="`stress_unit` and `stress_sign`"):
            read(tmp_path, **METRIC)


def test_a_group_with_a_single_structure(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        arrays = {"pos": POSITIONS, "species": [b"Si", b"O"], "energy": ENERGY, "forces": FORCES}
        for name, values in {**arrays, "cell": CELL, "virial": VIRIAL}.items():
            file[f"one/{name}"] = values
    (atoms,) = read(tmp_path, **METRIC)
    assert_read(atoms)


def test_what_cannot_be_meant_is_refused(tmp_path):
    arrays = {"R": POSITIONS * THREE, "z": [14, 8], "E": np.zeros(3), "F": FORCES * THREE}
    for name, wrong, message in (
        ("z", [14, 8, 8], "do not match"),
        ("E", np.zeros(4), "4 energies of 3"),
        ("F", FORCES, "forces of 3 structures"),
    ):
        npz(tmp_path, **{**arrays, name: wrong})
        with pytest.raises(ValueError, match=message):
            read(tmp_path, **METRIC)
    npz(tmp_path, R=POSITIONS * THREE, E=np.zeros(3))
    with pytest.raises(ValueError, match="it needs positions .*; it has R, E"):
        read(tmp_path, **METRIC)
    npz(tmp_path, R=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="can run any code"):
        read(tmp_path, **METRIC)


def test_ani_with_a_chosen_level(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("OSi", "SiO"):
            group = file.create_group(name)
            group["atomic_numbers"] = np.array([14, 8], dtype=np.uint8)
            group["coordinates"] = (POSITIONS * THREE).astype(np.float32)
            group["wb97x_dz.energy"] = np.array([ENERGY, np.nan, ENERGY]) / units.Hartree
            group["wb97x_dz.forces"] = FORCES / units.Hartree * THREE
            group["ccsd(t)_cbs.energy"] = np.zeros(3)
    options = {"length_unit": "A", "energy_unit": "Ha"}
    with pytest.raises(ValueError, match="could be .*wb97x_dz.energy.*; choose it with"):
        read(tmp_path, **options)
    keys = {"energy_key": "wb97x_dz.energy", "forces_key": "wb97x_dz.forces"}
    frames = read(tmp_path, **options, **keys)
    assert len(frames) == 6
    assert_read(frames[5], stress=False, periodic=False)
    assert "energy" not in frames[1].calc.results
    assert [atoms.info["group"] for atoms in frames[2:4]] == ["OSi", "SiO"]


def test_options_are_applied_once_by_an_import(tmp_path):
    npz(tmp_path, R=POSITIONS * THREE / 10, z=[14, 8], e1=[ENERGY * 1000] * 3, F=FORCES * THREE)
    config = ImportConfig(
        sources=[str(tmp_path / "a.npz")],
        output=str(tmp_path / "out.h5"),
        length_unit="nm",
        energy_unit="meV",
        forces_unit="eV/A",
        energy_key="e1",
    )
    import_structures(config)
    structure = open_store(tmp_path / "out.h5")[2]
    assert structure.energy == pytest.approx(ENERGY)
    np.testing.assert_allclose(structure.positions, POSITIONS)
    np.testing.assert_allclose(structure.forces, FORCES)


def test_spice_with_gradients_and_units_in_attributes(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        group = file.create_group("si-o")
        group["atomic_numbers"] = np.array([14, 8])
        arrays = {
            "conformations": (POSITIONS / units.Bohr, "bohr"),
            "dft_total_energy": (ENERGY / units.Hartree, "hartree"),
            "dft_total_gradient": (-FORCES * units.Bohr / units.Hartree, "hartree/bohr"),
        }
        for name, (values, unit) in arrays.items():
            group[name] = np.asarray(values)[None]
            group[name].attrs["units"] = unit
        group["formation_energy"] = np.zeros(1)
    (atoms,) = read(tmp_path)
    assert_read(atoms, stress=False, periodic=False)


def mace(file, number, **changes):
    group = file.create_group(f"config_batch_0/config_{number}")
    values = {"atomic_numbers": [14, 8], "positions": POSITIONS, "cell": CELL, "pbc": [True] * 3}
    for name, value in {**values, "weight": 1.0, "config_type": "Default"}.items():
        group[name] = value
    labels = {"energy": ENERGY + number, "forces": FORCES, "stress": STRESS, "virials": "None"}
    for name, value in {**labels, **changes}.items():
        group[f"properties/{name}"] = value
        group[f"property_weights/{name}"] = 0.0 if isinstance(value, str) else 1.0


def test_mace(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(12):
            mace(file, number)
        mace(file, 12, energy=ENERGY, stress="None", virials=VIRIAL)
    frames = read(tmp_path)
    energies = [atoms.calc.results["energy"] - ENERGY for atoms in frames]
    np.testing.assert_allclose(energies, [*range(12), 0], atol=1e-9)
    assert_read(frames[0])
    assert_read(frames[12])


@pytest.mark.parametrize(
    "names, message", [(["config_0/forces"], "old version of MACE"), (["a/b"], "no group of it")]
)
def test_other_hdf5_is_refused(tmp_path, names, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in names:
            file[name] = np.zeros(3)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_dataset_is_not_imported_again(tmp_path):
    npz(tmp_path, R=POSITIONS * THREE, z=[14, 8], E=[ENERGY] * 3, F=FORCES * THREE)
    config = ImportConfig(
        sources=[str(tmp_path / "a.npz")], output=str(tmp_path / "set.h5"), **METRIC
    )
    import_structures(config)
    with pytest.raises(ValueError, match="dataset already"):
        list(read_hdf5(str(tmp_path / "set.h5"), Counter()))
