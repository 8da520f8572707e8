"""OUTCAR: numbers as VASP prints them, in our units and signs; doubtful ones are left out."""

import gzip
from collections import Counter

import ase.io
import numpy as np
import pytest
from ase import units

from tesseral.data.sources.outcar import read_outcar


def read(path, text):
    path.write_text(text)
    left_out = Counter()
    return list(read_outcar(str(path), left_out)), dict(+left_out)


def test_numbers_units_and_signs(tmp_path, vasp):
    steps = vasp.make_steps(3)
    found, left_out = read(tmp_path / "OUTCAR", vasp.outcar(steps))
    assert len(found) == 3 and not left_out
    for atoms, step in zip(found, steps, strict=True):
        assert atoms.get_chemical_symbols() == ["Si", "C", "C"]
        np.testing.assert_allclose(atoms.positions, step.positions, atol=1e-9)
        np.testing.assert_allclose(atoms.cell.array, step.cell, atol=1e-9)
        results = atoms.calc.results
        assert (results["energy"], results["free_energy"]) == (step.energy, step.free_energy)
        np.testing.assert_allclose(results["forces"], step.forces, atol=1e-9)
        # In VASP's sign a positive number is compression; ASE's order is xx yy zz yz xz xy.
        stress = -0.1 * units.GPa * step.kbar
        pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
        np.testing.assert_allclose(results["stress"], [stress[pair] for pair in pairs], atol=1e-9)


def test_ase_reads_the_same(tmp_path, vasp):
    found, _ = read(tmp_path / "OUTCAR", vasp.outcar(vasp.make_steps(2)))
    for ours, theirs in zip(found, ase.io.read(tmp_path / "OUTCAR", ":"), strict=True):
        for name, value in ours.calc.results.items():
            np.testing.assert_allclose(value, theirs.calc.results[name], atol=1e-12)


@pytest.mark.parametrize(
    "mark", ["EDIFF was not reached (unconverged)", "because hard stop was set", ""]
)
def test_steps_that_did_not_converge_are_left_out(tmp_path, vasp, mark):
    first, second, third = vasp.make_steps(3)
    text = vasp.outcar([first, second._replace(converged=False), third], mark)
    found, left_out = read(tmp_path / "OUTCAR", text)
    assert [atoms.calc.results["energy"] for atoms in found] == [first.energy, third.energy]
    assert left_out == {"steps left out (electronic steps did not converge)": 1}


def test_what_vasp_does_not_say_is_taken_for_converged(tmp_path, vasp):
    text = vasp.outcar(vasp.make_steps(1)).replace("aborting loop because EDIFF is reached", "")
    assert len(read(tmp_path / "OUTCAR", text)[0]) == 1


def test_a_learned_force_field_is_not_dft(tmp_path, vasp):
    learned, true = vasp.make_steps(2)
    text = vasp.header() + vasp.ionic_step(learned, learned=True)
    # VASP goes on to compute the second step by DFT as well, which counts alone.
    text += vasp.ionic_step(learned, learned=True)
    text += vasp.electronic_steps(2, 3, "because EDIFF is reached") + "\n" + vasp.ionic_step(true)
    found, left_out = read(tmp_path / "OUTCAR", text + " General timing and accounting\n")
    assert [atoms.calc.results["energy"] for atoms in found] == [true.energy]
    np.testing.assert_allclose(found[0].calc.results["forces"], true.forces, atol=1e-9)
    assert left_out == {"steps left out (from a learned force field, not from DFT)": 1}


def test_a_file_cut_off_anywhere_gives_its_whole_steps(tmp_path, vasp, every_cut):
    text = vasp.outcar(vasp.make_steps(3)).encode()
    every_cut(read_outcar, text, tmp_path / "OUTCAR", cuts=200)


def test_a_number_cut_off_is_no_number(tmp_path, vasp):
    text = vasp.outcar(vasp.make_steps(2))
    end = text.rindex("-22.50000000") + len("-2")  # the energy of the second step, as -2
    found, left_out = read(tmp_path / "OUTCAR", text[:end])
    assert len(found) == 1 and sum(left_out.values()) == 1


def test_a_compressed_file_and_one_cut_off(tmp_path, vasp):
    text = vasp.outcar(vasp.make_steps(40))
    packed = gzip.compress(text.encode(), mtime=0)
    (tmp_path / "OUTCAR.gz").write_bytes(packed)
    assert len(list(read_outcar(str(tmp_path / "OUTCAR.gz"), Counter()))) == 40
    (tmp_path / "OUTCAR.gz").write_bytes(packed[: len(packed) // 2])
    left_out = Counter()
    found = list(read_outcar(str(tmp_path / "OUTCAR.gz"), left_out))
    print(len(found), "of 40 steps in half of the file")
    assert 5 < len(found) < 35
    assert any("end before" in what for what in left_out)


def test_numbers_too_large_for_their_field(tmp_path, vasp):
    step, other = vasp.make_steps(2)
    number = f"{step.forces[1, 1]:14.6f}"
    text = vasp.outcar([step, other]).replace(number, 14 * "*", 1)
    found, left_out = read(tmp_path / "OUTCAR", text)
    assert [atoms.calc.results["energy"] for atoms in found] == [other.energy]
    assert left_out == {"steps left out (numbers missing or overflowed to ***)": 1}


def test_numbers_without_a_space_between_them(tmp_path, vasp):
    (step,) = vasp.make_steps(1)
    kbar = np.array([[-1000.5, -3000.5, 1.0], [-3000.5, -2000.5, 2.0], [1.0, 2.0, -12345.5]])
    found, _ = read(tmp_path / "OUTCAR", vasp.outcar([step._replace(kbar=kbar)]))
    assert "-12345.50000-3000.50000" not in (tmp_path / "OUTCAR").read_text()
    text = (tmp_path / "OUTCAR").read_text().replace(" -3000.50000", "-3000.50000")
    again, _ = read(tmp_path / "OUTCAR", text)
    np.testing.assert_array_equal(found[0].calc.results["stress"], again[0].calc.results["stress"])


def test_only_the_pressure_is_computed_with_isif_1(tmp_path, vasp):
    found, left_out = read(tmp_path / "OUTCAR", vasp.outcar(vasp.make_steps(2), ISIF="1"))
    assert "stress" not in found[0].calc.results
    assert left_out == {"stresses left out (ISIF 0 computes none, ISIF 1 the pressure only)": 2}


def test_the_settings(tmp_path, vasp):
    found, _ = read(tmp_path / "OUTCAR", vasp.outcar(vasp.make_steps(1), IVDW="12"))
    assert found[0].info["settings"] == (
        "code VASP 6.3.0; functional PBE + D3(BJ); cutoff 520 eV; spin collinear; smearing "
        "Gaussian 0.05 eV; k-points 3 x 3 x 2; potentials Si = PAW_PBE Si 05Jan2001, "
        "C = PAW_PBE C_s 06Sep2000"
    )


@pytest.mark.parametrize(
    "tags, name",
    [
        ({"GGA": "--"}, "PBE"),
        ({"GGA": "PS"}, "PBEsol"),
        ({"METAGGA": "R2SCAN"}, "R2SCAN"),
        ({"LHFCALC": "T", "HFSCREEN": "0.2"}, "PBE hybrid (AEXX 0.25, HFSCREEN 0.2)"),
        ({"LDAUU": "0.0 3.9"}, "PBE + U (0 3.9 eV)"),
        ({"LDAUU": "2*0.0"}, "PBE + U (2*0.0 eV)"),
    ],
)
def test_functionals(tmp_path, vasp, tags, name):
    found, _ = read(tmp_path / "OUTCAR", vasp.outcar(vasp.make_steps(1), **tags))
    assert f"functional {name};" in found[0].info["settings"]


def test_runs_one_behind_the_other_are_refused(tmp_path, vasp):
    text = vasp.outcar(vasp.make_steps(1))
    with pytest.raises(ValueError, match="several runs"):
        read(tmp_path / "OUTCAR", text + text)


def test_a_table_of_other_atoms_is_not_cut_to_fit(tmp_path, vasp):
    text = vasp.outcar(vasp.make_steps(1))
    assert "   1   2\n" in text  # ions per type
    text = text.replace("   1   2\n", "   1   1\n")
    found, left_out = read(tmp_path / "OUTCAR", text)
    assert not found and sum(left_out.values()) == 1


def test_files_beside_it_do_not_matter(tmp_path, vasp):
    (tmp_path / "POSCAR").write_text("rubbish")  # where ASE looks for constraints
    assert len(read(tmp_path / "OUTCAR", vasp.outcar(vasp.make_steps(1)))[0]) == 1


def test_titles_of_potcars_that_were_taken_out(tmp_path, vasp):
    text = vasp.outcar(vasp.make_steps(1)).replace("TITEL", "X")
    assert read(tmp_path / "OUTCAR", text)[0][0].get_chemical_symbols() == ["Si", "C", "C"]


def test_a_file_without_its_header_is_refused(tmp_path, vasp):
    with pytest.raises(ValueError, match="0 POTCARs .* vasprun.xml"):
        read(tmp_path / "OUTCAR", vasp.ionic_step(vasp.make_steps(1)[0]))


UNCONVERGED = "steps left out (electronic steps did not converge)"
UNREADABLE = "steps left out (numbers missing or overflowed to ***)"


def test_vasp_5_says_at_nelm_that_ediff_is_reached(tmp_path, vasp):
    first, second = vasp.make_steps(2)
    text = vasp.outcar([first._replace(converged=False), second], "because EDIFF is reached")
    found, left_out = read(tmp_path / "OUTCAR", text)
    assert [atoms.calc.results["energy"] for atoms in found] == [second.energy]
    assert left_out == {UNCONVERGED: 1}


@pytest.mark.parametrize(
    "line, kept",
    [
        ("   NELM=4;NELMIN=2;NELMDL=-5", False),
        ("NELM    =      4;   NELMIN=  2", False),
        ("   NELM   =      5;   NELMIN=  2\n   NELM    =      1", True),  # the latter of responses
        ("   NELM = 5 ! not NELM = 4", True),
        (" # NELM = 4", True),  # of a comment in the INCAR; the default is 60
        ("", True),
    ],
)
def test_forms_of_nelm(tmp_path, vasp, line, kept):
    text = vasp.outcar(vasp.make_steps(1))  # with four electronic steps
    printed = next(each for each in text.splitlines() if "NELMIN" in each)
    found, left_out = read(tmp_path / "OUTCAR", text.replace(printed, line))
    assert len(found) == kept and left_out == ({} if kept else {UNCONVERGED: 1})


def test_a_single_electronic_step_counts(tmp_path, vasp):
    (step,) = vasp.make_steps(1)
    text = vasp.header(NELM="1") + vasp.electronic_steps(1, 1, "because EDIFF is reached")
    text += "\n" + vasp.ionic_step(step) + " General timing and accounting\n"
    found, left_out = read(tmp_path / "OUTCAR", text)
    assert not found and left_out == {UNCONVERGED: 1}


@pytest.mark.parametrize(
    "tags",
    [{"ICHARG": "11    charge: 1-file"}, {"IALGO": "3    algorithm"}, {"SCALEE": "0.5"}],
)
def test_what_is_not_self_consistent_is_left_out(tmp_path, vasp, tags):
    found, left_out = read(tmp_path / "OUTCAR", vasp.outcar(vasp.make_steps(2), **tags))
    assert not found and list(left_out.values()) == [2]
    assert ["not self-consistent" in what for what in left_out] == [True]


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_step_without_energy_costs_itself(tmp_path, vasp, lost, ended):
    steps = vasp.make_steps(3)
    lines = vasp.outcar(steps, ended=ended).splitlines(keepends=True)
    energy = f"{steps[lost].free_energy:18.8f} eV"
    at = next(i for i, line in enumerate(lines) if "free  energy" in line and energy in line)
    found, left_out = read(tmp_path / "OUTCAR", "".join(lines[:at] + lines[at + 3 :]))
    energies = [step.energy for i, step in enumerate(steps) if i != lost]
    assert [atoms.calc.results["energy"] for atoms in found] == energies
    assert left_out.pop(UNREADABLE, 0) == (ended or lost < 2)
    assert len(left_out) == (not ended)


def test_a_step_without_forces_costs_itself(tmp_path, vasp):
    steps = vasp.make_steps(3)
    text = vasp.outcar(steps)
    start = text.index(" POSITION", text.index(f"{steps[0].energy:18.8f}"))
    end = text.index("  FREE ENERGIE", start)
    found, left_out = read(tmp_path / "OUTCAR", text[:start] + text[end:])
    assert [atoms.calc.results["energy"] for atoms in found] == [steps[0].energy, steps[2].energy]
    assert left_out == {UNREADABLE: 1}
