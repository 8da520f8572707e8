"""GPAW's text, old form and new, against the trajectories of the same calculations."""

import gzip
from collections import Counter
from pathlib import Path

import ase.io
import ase.io.ulm
import numpy as np
import pytest
from ase import units
from ase.io.trajectory import write_atoms

from tesseral.data.sources.gpaw import read_gpaw_text, read_gpw

FILES = Path(__file__).parent / "files"
FORMS = ["gpaw_si", "gpaw_legacy_si"]


def read(name):
    left_out = Counter()
    return list(read_gpaw_text(str(FILES / f"{name}.txt.gz"), left_out)), dict(+left_out)


def read_text(path, text):
    path.write_text(text)
    left_out = Counter()
    return list(read_gpaw_text(str(path), left_out)), dict(+left_out)


def text_of(name):
    return gzip.decompress((FILES / f"{name}.txt.gz").read_bytes()).decode()


@pytest.mark.parametrize("name", FORMS)
def test_the_same_as_in_the_trajectory(name):
    found, left_out = read(name)
    trajectory = ase.io.read(FILES / f"{name}.traj", ":")
    assert len(found) == len(trajectory) == 3 and not left_out
    for ours, other in zip(found, trajectory, strict=True):
        np.testing.assert_allclose(ours.positions, other.positions, atol=6e-7)
        np.testing.assert_allclose(ours.cell.array, other.cell.array, atol=6e-7)
        assert ours.pbc.all() and ours.get_chemical_symbols() == ["Si", "Si"]
        results = other.calc.results
        for label in ("energy", "free_energy"):
            assert ours.calc.results[label] == pytest.approx(results[label], abs=6e-7)
        assert np.any(results["forces"][0] != 0)  # of the fixed atom
        np.testing.assert_allclose(ours.calc.results["forces"], results["forces"], atol=6e-6)


def test_the_stress():
    *before, last = read("gpaw_si")[0]
    assert all("stress" not in atoms.calc.results for atoms in before)
    # What GPAW gave to ASE in the same calculation.
    stress = [-0.05933684, -0.05108503, -0.04012589, 0.056458, 0.05944569, 0.06264691]
    np.testing.assert_allclose(last.calc.results["stress"], stress, atol=6e-7)


def test_ase_reads_the_same_of_the_old_form():
    theirs = ase.io.read(FILES / "gpaw_legacy_si.txt.gz", ":", format="gpaw-out")
    for ours, other in zip(read("gpaw_legacy_si")[0], theirs, strict=True):
        np.testing.assert_array_equal(ours.positions, other.positions)
        for label in ("energy", "forces"):
            np.testing.assert_array_equal(ours.calc.results[label], other.calc.results[label])


def test_a_molecule_with_spin_whose_text_has_no_end():
    (atoms,), left_out = read("gpaw_o2")
    assert not atoms.pbc.any()
    assert "spin collinear" in atoms.info["settings"]
    assert atoms.calc.results["forces"][1, 2] == 1.04122
    assert any("end before" in what for what in left_out)


def test_a_structure_that_did_not_converge(tmp_path):
    text = text_of("gpaw_legacy_si")
    cut = text.index("Converged after", text.index("Converged after") + 1)
    found, left_out = read_text(tmp_path / "a.txt", text[:cut] + "Did not converge!\n\nTiming:\n")
    assert len(found) == 1
    assert left_out == {"steps left out (electronic steps did not converge)": 1}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_cut_off_anywhere_gives_its_whole_steps(tmp_path, every_cut, name):
    text = text_of(name)
    # Behind the last forces the file is whole, but for the stress.
    text = text[: text.index("Stress tensor")] + "timing:\nTiming:\n"
    every_cut(read_gpaw_text, text.encode(), tmp_path / "a.txt")


def test_a_stress_cut_off_takes_its_step_with_it_where_others_have_one(tmp_path):
    text = text_of("gpaw_legacy_si")
    table = "Stress tensor:\n" + 3 * "  0.1  0.1  0.1\n"
    first, second, *_ = text.split("System changes: positions \n")
    found, _ = read_text(tmp_path / "a.txt", first + table + second + table)
    assert ["stress" in atoms.calc.results for atoms in found] == [True, True]
    found, left_out = read_text(tmp_path / "a.txt", first + table + second + table[:30])
    assert len(found) == 1 and sum(left_out.values()) == 1
    found, left_out = read_text(tmp_path / "a.txt", first + table + second)
    assert len(found) == 1 and sum(left_out.values()) == 1


def test_energies_with_a_correction_are_not_taken(tmp_path):
    text = text_of("gpaw_legacy_si").replace("Forces in", "vdW correction:\nForces in", 1)
    found, left_out = read_text(tmp_path / "a.txt", text)
    assert len(found) == 2
    assert sum(count for what, count in left_out.items() if "van der Waals" in what) == 1


@pytest.mark.parametrize("name", FORMS)
def test_the_settings(name):
    assert read(name)[0][-1].info["settings"] == (
        "code GPAW 26.7.0; functional PBE; cutoff 200 eV; spin none; smearing 0.1 eV; "
        "k-points 2 x 2 x 2"
    )


def test_a_restart_file(tmp_path):
    (source, *_) = ase.io.read(FILES / "gpaw_si.traj", ":")
    results = source.calc.results
    with ase.io.ulm.open(tmp_path / "a.gpw", "w", tag="gpaw") as file:
        file.write(version=4, gpaw_version="26.7.0", ha=units.Ha, bohr=units.Bohr)
        write_atoms(file.child("atoms"), source)
        file.child("results").write(**{name: results[name] for name in ("energy", "forces")})
        file.child("parameters").write(xc={"name": "PBE"}, mode={"name": "pw", "ecut": 200.0})
        file.child("wave_functions").write(fermi_levels=np.array([5.0]))
    (atoms,) = read_gpw(str(tmp_path / "a.gpw"), Counter())
    np.testing.assert_array_equal(atoms.calc.results["forces"], results["forces"])
    assert atoms.info["settings"] == "code GPAW 26.7.0; functional PBE; cutoff 200 eV"
