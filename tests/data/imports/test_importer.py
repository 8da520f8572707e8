"""Importing: every format must give the same structure with the same labels."""

import gzip
import json
import shutil
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core import Structure as Crystal

from tesseral.commands.main import main
from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.store.read import open_store

FILES = Path(__file__).parents[1] / "files"
CELL = np.array([[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]])
POSITIONS = np.array([[0, 0, 0], [1.35, 1.377, 1.377]])
FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
KBAR = np.array([[10.0, 4, 6], [4, 20, 5], [6, 5, 30]])  # VASP: positive under compression
STRESS = -KBAR * 0.1 * units.GPa
ENERGY, FREE_ENERGY = -10.81, -10.82


def silicon(**results):
    """The structure of all files here, labelled as ASE does it."""
    atoms = Atoms("Si2", positions=POSITIONS, cell=CELL, pbc=True)
    labels = {"energy": ENERGY, "forces": FORCES, "stress": STRESS, **results}
    labels = {name: value for name, value in labels.items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def crystal():
    return Crystal(CELL, ["Si", "Si"], POSITIONS, coords_are_cartesian=True).as_dict()


def raw_extxyz(folder, count=1, *, forces=True, header=f"energy={ENERGY}", name="a.extxyz"):
    """Frames as text; forces=False leaves them out of the first frame only."""
    lattice = " ".join(str(x) for x in CELL.ravel())
    lines = []
    for frame in range(count):
        with_forces = forces or frame > 0
        columns = ":forces:R:3" if with_forces else ""
        lines += ["2", f'Lattice="{lattice}" Properties=species:S:1:pos:R:3{columns} {header}']
        for position, force in zip(POSITIONS, FORCES, strict=True):
            numbers = [*position, *force] if with_forces else [*position]
            lines.append("Si " + " ".join(str(x) for x in numbers))
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def write_extxyz(folder):
    ase.io.write(folder / "a.extxyz", silicon())
    return folder / "a.extxyz"


def write_traj(folder):
    ase.io.write(folder / "a.traj", silicon())
    return folder / "a.traj"


def write_db(folder):
    with ase.db.connect(folder / "a.db") as database:
        database.write(silicon(), config_type="bulk")
    return folder / "a.db"


def write_ase_json(folder):
    ase.io.write(folder / "a.json", silicon())
    return folder / "a.json"


def write_mlearn(folder):
    entry = {
        "structure": crystal(),
        "group": "AIMD",
        "description": "Snapshot 1",
        "num_atoms": 2,
        "outputs": {
            "energy": ENERGY,
            "forces": FORCES.tolist(),
            "virial_stress": [10.0, 20.0, 30.0, 4.0, 5.0, 6.0],
        },
    }
    (folder / "a.json").write_text(json.dumps([entry]))
    return folder / "a.json"


def write_old_mlearn(folder):
    data = {"energy_per_atom": ENERGY / 2, "forces": FORCES.tolist(), "stress": KBAR.tolist()}
    (folder / "a.json").write_text(json.dumps([{"structure": crystal(), "data": data}]))
    return folder / "a.json"


def mptrj_frame(**changes):
    return {
        "structure": crystal(),
        "uncorrected_total_energy": ENERGY,
        "corrected_total_energy": ENERGY,
        "energy_per_atom": ENERGY / 2,
        "force": FORCES.tolist(),
        "stress": KBAR.tolist(),
        "magmom": None,
        "bandgap": 0.6,
        "mp_id": "mp-149",
        **changes,
    }


def write_mptrj(folder):
    data = {"mp-149": {"task-0-0": mptrj_frame()}}
    with gzip.open(folder / "a.json.gz", "wt") as file:
        json.dump(data, file)
    return folder / "a.json.gz"


def outcar(folder):
    return FILES / "OUTCAR"


def vasprun(folder):
    return FILES / "vasprun.xml"


def run(source, folder, **options):
    sources = source if isinstance(source, list) else [source]
    config = ImportConfig(
        sources=[str(path) for path in sources], output=str(folder / "out.h5"), **options
    )
    return import_structures(config), open_store(folder / "out.h5")


def assert_silicon(structure, *, stress=True):
    assert structure.numbers.tolist() == [14, 14]
    np.testing.assert_allclose(structure.positions, POSITIONS, atol=1e-9)
    np.testing.assert_allclose(structure.cell, CELL, atol=1e-9)
    assert structure.pbc.all()
    assert structure.energy == pytest.approx(ENERGY, abs=1e-9)
    np.testing.assert_allclose(structure.forces, FORCES, atol=1e-9)
    if stress:
        np.testing.assert_allclose(structure.stress, STRESS, rtol=1e-6)


FORMATS = [
    (write_extxyz, {}),
    (write_traj, {}),
    (write_db, {}),
    (write_ase_json, {}),
    (outcar, {}),
    (vasprun, {}),
    (write_mlearn, {}),
    (write_old_mlearn, {}),
    (write_mptrj, {}),
]


@pytest.mark.parametrize(
    "write, options", FORMATS, ids=[f"{w.__name__}{'-'.join(o.values())}" for w, o in FORMATS]
)
def test_every_format_gives_the_same_labels(tmp_path, write, options):
    report, store = run(write(tmp_path), tmp_path, **options)
    assert_silicon(store[0])
    assert report.structures == len(store) == 1
    assert report.labels == {"energy": 1, "forces": 1, "stress": 1}


@pytest.mark.parametrize("stress", ["10 20 30 4 5 6", "10 4 6 4 20 5 6 5 30"], ids=["six", "nine"])
def test_a_stress_in_the_units_order_and_sign_of_vasp(tmp_path, stress):
    path = raw_extxyz(tmp_path, header=f'energy={ENERGY} stress="{stress}"')
    _, store = run(path, tmp_path, stress_unit="kbar", stress_sign=-1, stress_order="vasp")
    assert_silicon(store[0])


def test_a_virial_and_other_units(tmp_path):
    volume = abs(np.linalg.det(CELL))
    virial = " ".join(str(x) for x in (-STRESS * volume * 1000).ravel())
    path = raw_extxyz(tmp_path, header=f'E={1000 * ENERGY} W="{virial}"')
    _, store = run(
        path, tmp_path, energy_key="E", energy_unit="meV", virial_key="W", forces_unit="eV/A"
    )
    assert_silicon(store[0])


def test_units_of_json_can_be_changed(tmp_path):
    data = {"energy": ENERGY, "forces": FORCES.tolist(), "stress": (STRESS / units.GPa).tolist()}
    (tmp_path / "a.json").write_text(json.dumps([{"structure": crystal(), **data}]))
    _, store = run(tmp_path / "a.json", tmp_path, stress_unit="GPa", stress_sign=1)
    assert_silicon(store[0])


def test_free_energy_can_be_chosen_and_its_difference_is_reported(tmp_path):
    report, _ = run(FILES / "OUTCAR", tmp_path)
    assert any("5 meV/atom" in warning for warning in report.warnings)
    report, store = run(FILES / "OUTCAR", tmp_path, energy_key="free_energy", overwrite=True)
    assert store[0].energy == FREE_ENERGY
    assert not report.warnings


def test_mptrj_energies_that_differ_must_be_chosen(tmp_path):
    frame = mptrj_frame(corrected_total_energy=ENERGY - 1)
    (tmp_path / "a.json").write_text(json.dumps({"mp-149": {"task-0-0": frame}}))
    with pytest.raises(ValueError, match="`energy_key`"):
        run(tmp_path / "a.json", tmp_path)
    _, store = run(tmp_path / "a.json", tmp_path, energy_key="corrected_total_energy")
    assert store[0].energy == ENERGY - 1


def test_mptrj_materials_are_groups(tmp_path):
    data = {f"mp-{i}": {f"{i}-{j}": mptrj_frame() for j in range(2)} for i in range(3)}
    (tmp_path / "a.json").write_text(json.dumps(data))
    _, store = run(tmp_path / "a.json", tmp_path)
    assert store.texts("group") == ["mp-0", "mp-0", "mp-1", "mp-1", "mp-2", "mp-2"]


def test_mlearn_groups_are_config_types(tmp_path):
    _, store = run(write_mlearn(tmp_path), tmp_path)
    assert (store[0].config_type, store[0].group) == ("AIMD", "")


def test_texts_of_a_database_are_found(tmp_path):
    _, store = run(write_db(tmp_path), tmp_path)
    assert store[0].config_type == "bulk"


def test_labels_in_the_dictionaries_of_a_database_are_found(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        atoms = Atoms("Si2", positions=POSITIONS, cell=CELL, pbc=True)
        database.write(atoms, dft_energy=ENERGY, data={"forces": FORCES, "stress": STRESS})
    _, store = run(tmp_path / "a.db", tmp_path)
    assert_silicon(store[0])


def test_config_type_and_group_keys(tmp_path):
    path = raw_extxyz(tmp_path, header=f"energy={ENERGY} kind=surface run=7")
    _, store = run(path, tmp_path, config_type_key="kind", group_key="run", theory="PBE")
    structure = store[0]
    assert (structure.config_type, structure.group) == ("surface", "7")
    assert (structure.theory, structure.source) == ("PBE", "a.extxyz")
    assert store.attributes["source"] == "a.extxyz"
    assert store.attributes["theory"] == "PBE"


def test_what_was_done_to_each_label_is_kept(tmp_path):
    six = " ".join(str(x) for x in range(1, 7))
    header = f'energy_Ha=-0.4 virial_stress="{six}"'
    path = raw_extxyz(tmp_path, header=header)
    options = {"energy_key": "energy_Ha", "energy_unit": "Ha", "stress_key": "virial_stress"}
    report, store = run(
        path, tmp_path, **options, stress_unit="kbar", stress_sign=-1, stress_order="lammps"
    )
    lines = store.attributes["conversions"].split("; ")
    print(lines)
    assert lines[0] == "energy = the structure's 'energy_Ha' in Ha · 27.21139"
    assert lines[1] == "forces = the calculator's 'forces' in eV/Å"
    assert lines[2] == (
        "stress = the structure's 'virial_stress' in kbar · -0.0006241509, xx yy zz xy xz yz"
    )
    assert [value for name, value in report.rows() if name == "read as"] == lines
    assert store[0].stress[0, 1] == pytest.approx(-4 * 0.1 * units.GPa)


def test_a_virial_is_described(tmp_path):
    nine = "1 0 0 0 1 0 0 0 1"
    _, store = run(raw_extxyz(tmp_path, header=f'energy=-1 virial="{nine}"'), tmp_path)
    assert (
        "stress = the structure's 'virial' in eV / -V, a tensor" in store.attributes["conversions"]
    )


def test_forces_of_zero_are_mentioned(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", silicon(forces=0 * FORCES))
    report, _ = run(tmp_path / "a.extxyz", tmp_path)
    assert any("forces of 1 structures are exactly zero" in text for text in report.warnings)


@pytest.mark.parametrize("index, count", [(":", 5), ("1:3", 2), ("::2", 3), ("-1", 1), ("2", 1)])
def test_index_chooses_frames(tmp_path, index, count):
    assert run(raw_extxyz(tmp_path, 5), tmp_path, index=index)[0].structures == count


@pytest.mark.parametrize(
    "index, count", [(":", 4), ("1:3", 2), ("::2", 2), ("3", 1), ("-1", 1), ("-3:", 3)]
)
def test_index_chooses_frames_of_json(tmp_path, index, count):
    data = {"mp-149": {str(i): mptrj_frame() for i in range(4)}}
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert run(tmp_path / "a.json", tmp_path, index=index)[0].structures == count


def test_several_sources_become_one_dataset(tmp_path):
    sources = [write_traj(tmp_path), raw_extxyz(tmp_path, 3)]
    report, store = run(sources, tmp_path)
    assert store.texts("source") == ["a.traj", *["a.extxyz"] * 3]
    assert report.sources == {"a.traj": 1, "a.extxyz": 3}


def test_no_forces_are_refused_and_nothing_is_written(tmp_path):
    path = raw_extxyz(tmp_path, forces=False)
    with pytest.raises(ValueError, match="no forces: a.extxyz frame 0.*`allow_missing=.'forces'.`"):
        run(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_frames_without_forces_are_named(tmp_path):
    path = raw_extxyz(tmp_path, 3, forces=False)
    with pytest.raises(ValueError, match="1 of 3 .* no forces: a.extxyz frame 0"):
        run(path, tmp_path)


def test_missing_forces_can_be_allowed(tmp_path):
    report, store = run(raw_extxyz(tmp_path, 3, forces=False), tmp_path, allow_missing=["forces"])
    assert np.isnan(store[0].forces).all()
    assert not np.isnan(store[1].forces).any()
    assert any("1 structures have no forces" in warning for warning in report.warnings)


def test_no_energy_is_refused(tmp_path):
    path = raw_extxyz(tmp_path, header="")
    with pytest.raises(ValueError, match="no energy.*calculator: forces"):
        run(path, tmp_path)
    assert np.isnan(run(path, tmp_path, allow_missing=["energy"])[1][0].energy)


def test_forces_under_another_name_are_pointed_at(tmp_path):
    path = raw_extxyz(tmp_path)
    path.write_text(path.read_text().replace("forces:R:3", "my_forces:R:3"))
    with pytest.raises(ValueError, match="frame 0: .*`forces_key='my_forces'`"):
        run(path, tmp_path)
    assert_silicon(run(path, tmp_path, forces_key="my_forces")[1][0], stress=False)


def test_isolated_atoms_need_no_forces(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", Atoms("H", info={"energy": -13.6}))
    assert run(tmp_path / "a.extxyz", tmp_path)[1][0].energy == -13.6


def test_a_missing_stress_is_reported_but_accepted(tmp_path):
    report, store = run(raw_extxyz(tmp_path), tmp_path)
    assert np.isnan(store[0].stress).all()
    assert any("1 of 1 periodic structures have no stress" in text for text in report.warnings)


def test_a_stress_without_a_volume_is_reported(tmp_path):
    atoms = silicon()
    atoms.pbc = (True, True, False)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=FORCES, stress=STRESS)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    report, _ = run(tmp_path / "a.extxyz", tmp_path)
    assert any("1 stresses of structures without a volume" in text for text in report.warnings)


def test_duplicates_are_reported(tmp_path):
    report, _ = run(raw_extxyz(tmp_path, 3), tmp_path)
    assert report.duplicates == 2
    assert any("occur more than once" in text for text in report.warnings)


def test_suspicious_units_are_reported(tmp_path):
    path = raw_extxyz(tmp_path, header=f'energy={ENERGY} stress="10 4 6 4 20 5 6 5 30"')
    report, _ = run(path, tmp_path)  # kbar taken for eV/Å³
    assert any("`stress_unit`" in text for text in report.warnings)


def test_the_report_has_ranges(tmp_path):
    report, _ = run(write_extxyz(tmp_path), tmp_path)
    assert report.energy_range == pytest.approx((ENERGY / 2,) * 2)
    assert report.largest_force == pytest.approx(np.sqrt(0.14))
    assert report.stress_range == pytest.approx((-3.0, -0.4))
    assert report.elements == {14: 2}


def test_the_command_prints_a_table(tmp_path, capsys):
    path = raw_extxyz(tmp_path, name="[red].extxyz")
    main(["data", "import", str(path), "-o", str(tmp_path / "out.h5")])
    printed = capsys.readouterr().out
    assert "[red].extxyz 1" in printed
    assert "Si 2" in printed
    assert "-5.4050 to -5.4050 eV/atom" in printed


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.json", "[1, 2", "a.json cannot be read"),
        ("a.json", '[{"structure": 3}]', "no structure in pymatgen's form"),
        ("a.json", '[{"structure": {}}] x', "a.json cannot be read"),
        ("a.strange", "nothing", "`format`"),
        (
            "a.extxyz",
            "3\nenergy=1\nH 0 0 0\n",
            "no structures to import: 1 files end within a frame",
        ),
        ("a.extxyz", "", "a.extxyz"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / name, tmp_path)
    assert not (tmp_path / "out.h5").exists()


def test_a_broken_frame_is_located(tmp_path):
    path = raw_extxyz(tmp_path, 3)
    path.write_text(path.read_text().replace("Si 0", "Si x", 2))
    with pytest.raises(ValueError, match="line 3, atom 0 of frame 0: 'Si x"):
        run(path, tmp_path)


def test_frames_before_an_incomplete_one_are_kept(tmp_path):
    path = raw_extxyz(tmp_path, 3)
    path.write_text(path.read_text()[:-30])
    report, _ = run(path, tmp_path)
    assert report.structures == 2
    assert any("1 files end within a frame" in text for text in report.warnings)


def test_positions_that_are_not_finite_are_located(tmp_path):
    path = raw_extxyz(tmp_path, 2)
    path.write_text(path.read_text().replace("1.35 ", "nan ", 1))
    with pytest.raises(ValueError, match="a.extxyz frame 0: the positions are not finite"):
        run(path, tmp_path)


def test_missing_sources_and_existing_outputs(tmp_path):
    path = raw_extxyz(tmp_path)
    with pytest.raises(FileNotFoundError, match="b.extxyz"):
        run(tmp_path / "b.extxyz", tmp_path)
    run(path, tmp_path)
    with pytest.raises(FileExistsError, match="`overwrite`"):
        run(path, tmp_path)
    run(path, tmp_path, overwrite=True)


def test_a_failed_import_leaves_the_old_dataset(tmp_path):
    path = raw_extxyz(tmp_path)
    run(path, tmp_path)
    before = (tmp_path / "out.h5").read_bytes()
    with pytest.raises(ValueError):
        run(raw_extxyz(tmp_path, forces=False), tmp_path, overwrite=True)
    assert (tmp_path / "out.h5").read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": []},
        {"output": "set.xyz"},
        {"allow_missing": ["dipole"]},
        {"stress_unit": "psi"},
        {"stress_sign": 3},
    ],
)
def test_refuses_wrong_values(wrong):
    with pytest.raises(ValueError):
        ImportConfig(**{"sources": ["a"], "output": "a.h5", **wrong})


def test_progress_is_told(tmp_path):
    seen = []
    path = raw_extxyz(tmp_path, 3)
    config = ImportConfig(sources=[str(path)], output=str(tmp_path / "out.h5"))
    import_structures(config, lambda *state: seen.append(state))
    assert seen[0] == ("looking for frames", 0, 0.0)
    assert ("reading", 3, 1.0) in seen
    assert seen[-1] == ("writing", 3, 1.0)


def test_third_party_silicon(third_party_data, tmp_path):
    report, store = run(third_party_data / "mlearn" / "Si_train.extxyz", tmp_path)
    assert len(store) == 214
    assert report.labels == {"energy": 214, "forces": 214, "stress": 214}
    assert store.elements == (14,)
    assert set(report.config_types) >= {"Vacancy"}


def test_third_party_molecules(third_party_data, tmp_path):
    folder = third_party_data / "acac"
    report, store = run([folder / "isolated_atoms.xyz", folder / "train_300K.xyz"], tmp_path)
    assert len(store) == 503
    assert report.periodic == 0
    assert np.isnan(store[100].stress).all()
    with pytest.raises(ValueError, match="45 of 45 .* no forces"):
        run(folder / "test_dihedral.xyz", tmp_path, overwrite=True)


def test_a_copy_under_another_name_has_the_same_content(tmp_path):
    path = write_traj(tmp_path)
    shutil.copy(path, tmp_path / "b.traj")
    first, _ = run(path, tmp_path)
    second, _ = run([path], tmp_path, overwrite=True)
    assert first.content_hash == second.content_hash


def test_large_files_with_blank_lines_are_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("tesseral.data.imports.parts.TASK_BYTES", 1000)
    text = raw_extxyz(tmp_path, 20).read_text()
    (tmp_path / "a.extxyz").write_text(f"{text}\n{text}")
    report, _ = run(tmp_path / "a.extxyz", tmp_path, processes=1)
    assert report.structures == 40


def test_the_report_names_what_a_model_does_not_know(tmp_path):
    first = raw_extxyz(tmp_path, header="energy=-1 charge=0", name="a.extxyz")
    second = raw_extxyz(tmp_path, header="energy=-1 charge=1 energy-unit=eV/atom", name="b.extxyz")
    report, _ = run([first, second], tmp_path)
    assert any("charge differs between the structures (0 1, 1 1)" in t for t in report.warnings)
    assert any("1 energies are per atom (eV/atom)" in t for t in report.warnings)


PARTLY = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
C1 C 0 0 0 0.5
Si1 Si 0 0 0 0.5
Si2 Si 0.5 0.5 0.5 1.0
"""


def test_partly_occupied_sites_are_refused(tmp_path):
    (tmp_path / "a.cif").write_text(PARTLY)
    with pytest.raises(ValueError, match="2 sites are shared by several elements"):
        run(tmp_path / "a.cif", tmp_path, allow_missing=["energy", "forces"])
