"""Importing calculations: groups, theories and what was left out, from the files to the store."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.store.read import open_store

FILES = Path(__file__).parent / "files"


def run(folder, *sources, **options):
    config = ImportConfig(
        sources=[str(source) for source in sources], output=str(folder / "out.h5"), **options
    )
    return import_structures(config), open_store(folder / "out.h5")


@pytest.fixture
def runs(tmp_path, vasp):
    """Three calculations in folders of their own: sound, partly converged, dead at once."""
    first, second, third = vasp.make_steps(3)
    texts = {
        "a": vasp.outcar([first, second]),
        "b": vasp.outcar([first._replace(converged=False), third], "EDIFF was not reached"),
        "c": vasp.outcar([first])[:900],
    }
    for name, text in texts.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "OUTCAR").write_text(text)
    return tmp_path / "runs"


def test_each_calculation_is_a_group(tmp_path, runs):
    _, store = run(tmp_path, runs)
    assert store.texts("group") == ["a/OUTCAR", "a/OUTCAR", "b/OUTCAR"]
    assert store.texts("source") == store.texts("group")


def test_calculations_are_groups_beside_a_key_for_other_files(tmp_path, runs):
    atoms = Atoms("H", info={"energy": -1.0, "system": "atom"})
    ase.io.write(tmp_path / "a.extxyz", atoms)
    _, store = run(tmp_path, runs / "a", tmp_path / "a.extxyz", group_key="system")
    assert store.texts("group") == ["runs/a/OUTCAR", "runs/a/OUTCAR", "atom"]


def test_the_report_says_what_was_left_out_and_passed_over(tmp_path, runs):
    report, _ = run(tmp_path, runs / "**" / "OUTCAR")
    print(*report.warnings, sep="\n")
    assert any(
        text == "1 steps left out (electronic steps did not converge): b/OUTCAR 1"
        for text in report.warnings
    )
    assert any(text.startswith("1 files were skipped: ") for text in report.warnings)


def test_a_file_that_was_named_must_be_readable(tmp_path, runs):
    with pytest.raises(ValueError, match="c/OUTCAR contains no structures|c/OUTCAR cannot be read"):
        run(tmp_path, runs / "a/OUTCAR", runs / "c/OUTCAR")
    assert not (tmp_path / "out.h5").exists()


def test_when_no_file_of_a_folder_can_be_read_the_reasons_are_said(tmp_path, runs):
    with pytest.raises(ValueError, match="no file could be imported: .*c/OUTCAR"):
        run(tmp_path, runs / "c")


def test_why_nothing_is_left_is_said(tmp_path, vasp):
    text = vasp.outcar([vasp.make_steps(1)[0]._replace(converged=False)])
    (tmp_path / "OUTCAR").write_text(text)
    with pytest.raises(ValueError, match="no structures to import: 1 steps .*did not converge"):
        run(tmp_path, tmp_path / "OUTCAR")


def test_the_theory_lands_in_the_store_and_mixing_is_reported(tmp_path, vasp):
    steps = vasp.make_steps(2)
    (tmp_path / "1.OUTCAR").write_text(vasp.outcar(steps[:1]))
    (tmp_path / "2.OUTCAR").write_text(vasp.outcar(steps[1:], ENCUT="400.0 eV"))
    report, store = run(tmp_path, tmp_path / "1.OUTCAR", tmp_path / "2.OUTCAR")
    assert store.texts("theory") == ["VASP PBE 520 eV", "VASP PBE 400 eV"]
    assert "theory" not in store.attributes
    assert (
        "1 structures: code VASP 6.3.0; functional PBE; cutoff 400 eV"
        in store.attributes["settings"]
    )
    assert any(
        "computed with different settings (cutoff 520 eV or 400 eV)" in text
        for text in report.warnings
    )
    report, store = run(tmp_path, tmp_path / "1.OUTCAR", overwrite=True, theory="mine")
    assert store.texts("theory") == ["mine"] and store.attributes["theory"] == "mine"
    _, store = run(tmp_path, tmp_path / "1.OUTCAR", overwrite=True)
    assert store.attributes["theory"] == "VASP PBE 520 eV"
    assert not any("computed with different settings" in text for text in report.warnings)


def test_outputs_of_different_codes_have_the_same_units(tmp_path):
    """Silicon at much the same place in pw.x and GPAW: forces and stresses agree roughly."""
    _, store = run(tmp_path, FILES / "pwx_md.out.gz", FILES / "gpaw_si.txt.gz", allow_missing=[])
    espresso, gpaw = store[0], store[3]
    print("forces", espresso.forces[1], gpaw.forces[1])
    np.testing.assert_allclose(espresso.positions, gpaw.positions, atol=1e-5)
    np.testing.assert_allclose(espresso.forces, gpaw.forces, atol=0.5)
    assert np.vdot(espresso.forces, gpaw.forces) > 0
    print("stress", espresso.stress, store[5].stress)
    assert np.vdot(espresso.stress, store[5].stress) > 0


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.db", "a.json"])
def test_forces_of_fixed_atoms_are_kept(tmp_path, name):
    forces = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    atoms = Atoms("Si2", positions=[[0, 0, 0], [1.4, 1.3, 1.4]], cell=4 * np.eye(3), pbc=True)
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    assert np.all(atoms.get_forces()[0] == 0)
    ase.io.write(tmp_path / name, atoms)
    np.testing.assert_array_equal(run(tmp_path, tmp_path / name)[1][0].forces, forces)


def test_steps_can_be_chosen(tmp_path):
    assert len(run(tmp_path, FILES / "pwx_md.out.gz", index="::2")[1]) == 2
    _, store = run(tmp_path, FILES / "pwx_md.out.gz", index="-1", overwrite=True)
    assert len(store) == 1 and store[0].positions[0, 1] == -0.0005317107
