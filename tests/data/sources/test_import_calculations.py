"""Importing calculations: groups, theories and what was left out, from the files to the store."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from tesseral.data.imports.importer import ImportConfig, _read, import_structures
from tesseral.data.imports.parts import Span
from tesseral.data.imports.report import ImportReport
from tesseral.data.sources.search import Source
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


def skipped(report):
    (text,) = [text for text in report.warnings if "files were skipped" in text]
    return text


@pytest.mark.parametrize("damage", ["header", "cut", "refused"])
def test_the_other_file_is_read_if_the_preferred_one_has_nothing(tmp_path, vasp, damage):
    steps = vasp.make_steps(2)
    good = vasp.vasprun(steps)
    bad = {
        "header": good.replace("<atominfo>", "<atominfo><<&", 1),
        "cut": good[: good.index("</scstep>")],
        "refused": vasp.vasprun(steps, NELM="1"),
    }[damage]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/vasprun.xml").write_text(bad)
    (tmp_path / "runs/OUTCAR").write_text(vasp.outcar(steps))
    report, store = run(tmp_path, tmp_path / "runs")
    assert store.texts("source") == ["OUTCAR", "OUTCAR"]
    assert skipped(report).endswith("; OUTCAR is opened instead")
    assert "vasprun.xml" in skipped(report)


def test_each_file_of_a_calculation_without_steps_is_named(tmp_path, runs, vasp):
    text = vasp.vasprun(vasp.make_steps(1), ICHARG="11")
    (tmp_path / "runs/b/vasprun.xml").write_text(text)
    (tmp_path / "runs/b/OUTCAR").write_text(vasp.outcar(vasp.make_steps(1), ICHARG="11"))
    report, store = run(tmp_path, runs)
    assert store.texts("source") == ["a/OUTCAR", "a/OUTCAR"]
    for name in ("b/vasprun.xml contains no", "b/OUTCAR contains no", "c/OUTCAR"):
        assert name in skipped(report)


def test_one_bad_step_of_a_folder_stops_nothing(tmp_path, runs, vasp):
    steps = vasp.make_steps(3)
    steps[1].forces[0, 0] = np.nan
    (tmp_path / "runs/b/vasprun.xml").write_text(vasp.vasprun(steps))
    report, store = run(tmp_path, runs)
    assert store.texts("source") == 2 * ["a/OUTCAR"] + 2 * ["b/vasprun.xml"]
    assert report.left_out["steps left out (numbers missing or overflowed to ***)"] == {
        "b/vasprun.xml": 1
    }


def test_structures_without_labels_in_a_folder_stop_nothing(tmp_path, runs):
    text = (FILES / "pwx_md.out.gz").read_bytes()
    (runs / "a.out.gz").write_bytes(text)
    atoms = Atoms("Si", pbc=True, cell=np.eye(3) * 3)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    ase.io.write(runs / "b.traj", atoms)
    report, store = run(tmp_path, runs, runs / "*.traj")
    assert "b.traj" not in store.texts("source") and len(store) > 3
    assert "b.traj contains no structures to import: 1 structures left out (no forces" in skipped(
        report
    )
    allowed, store = run(tmp_path, runs, runs / "*.traj", allow_missing=["forces"], overwrite=True)
    assert "b.traj" in store.texts("source")


def test_what_was_read_before_a_file_turns_bad_is_kept(tmp_path, vasp):
    text = vasp.outcar(vasp.make_steps(2))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/OUTCAR").write_text(text + text)
    report, store = run(tmp_path, tmp_path / "runs")
    assert len(store) == 2
    assert "several runs" in skipped(report)
    assert "(2 structures before that are kept)" in skipped(report)


def test_an_interrupted_import_resumes_in_the_other_file(tmp_path, vasp):
    """The file that has nothing is passed over again, and no structure is lost or read twice."""
    (tmp_path / "vasprun.xml").write_text("<modeling></modeling>")
    (tmp_path / "OUTCAR").write_text(vasp.outcar(vasp.make_steps(3)))
    source = Source(str(tmp_path / "vasprun.xml"), "vasprun.xml", True)
    source = source._replace(instead=(Source(str(tmp_path / "OUTCAR"), "OUTCAR", True),))
    config = ImportConfig(sources=["-"], output="-.h5")
    found = list(_read(config, Span(source), 2, ImportReport()))
    assert [one.place for one in found] == ["OUTCAR frame 2"]


def test_ml_ab_and_vaspout_are_groups_of_a_folder(tmp_path, vasp):
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    steps = vasp.make_steps(2)
    (tmp_path / "runs/a/ML_AB").write_text(vasp.ml_ab(steps[:1]))
    (tmp_path / "runs/a/ML_ABN").write_text(vasp.ml_ab(steps))
    vasp.vaspout(tmp_path / "runs/b/vaspout.h5", steps)
    _, store = run(tmp_path, tmp_path / "runs")
    assert store.texts("group") == 2 * ["a/ML_ABN"] + 2 * ["b/vaspout.h5"]
    np.testing.assert_allclose(store[0].stress, store[2].stress, atol=1e-9)
    np.testing.assert_allclose(store[1].forces, store[3].forces, atol=1e-9)
