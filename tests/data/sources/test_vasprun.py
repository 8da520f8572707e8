"""vasprun.xml: the same numbers as in an OUTCAR, with VASP's peculiarities repaired."""

import gzip
from collections import Counter

import ase.io
import numpy as np
import pytest

from tesseral.data.sources.outcar import read_outcar
from tesseral.data.sources.vasprun import read_vasprun


def read(path, text):
    path.write_text(text)
    left_out = Counter()
    return list(read_vasprun(str(path), left_out)), dict(+left_out)


@pytest.mark.parametrize("pstress", [0.0, 50.0])
def test_the_same_as_in_an_outcar(tmp_path, vasp, pstress):
    steps = vasp.make_steps(3)
    found, left_out = read(tmp_path / "vasprun.xml", vasp.vasprun(steps, pstress=pstress))
    (tmp_path / "OUTCAR").write_text(vasp.outcar(steps))
    assert len(found) == 3 and not left_out
    for ours, other in zip(found, read_outcar(str(tmp_path / "OUTCAR"), Counter()), strict=True):
        assert ours.info == other.info
        assert ours.get_chemical_symbols() == other.get_chemical_symbols()
        np.testing.assert_allclose(ours.positions, other.positions, atol=1e-7)
        np.testing.assert_allclose(ours.cell.array, other.cell.array, atol=1e-8)
        for name, value in other.calc.results.items():
            np.testing.assert_allclose(ours.calc.results[name], value, atol=2e-7)


def test_ase_reads_the_same(tmp_path, vasp):
    found, _ = read(tmp_path / "vasprun.xml", vasp.vasprun(vasp.make_steps(2)))
    theirs = ase.io.read(tmp_path / "vasprun.xml", ":")
    for ours, other in zip(found, theirs, strict=True):
        for name, value in ours.calc.results.items():
            np.testing.assert_allclose(value, other.calc.results[name], atol=1e-12)


def test_forces_of_fixed_atoms_are_kept(tmp_path, vasp):
    steps = vasp.make_steps(1)  # the first atom is fixed by selective dynamics
    found, _ = read(tmp_path / "vasprun.xml", vasp.vasprun(steps))
    (theirs,) = ase.io.read(tmp_path / "vasprun.xml", ":")
    assert np.all(theirs.get_forces()[0] == 0)
    np.testing.assert_allclose(found[0].calc.results["forces"], steps[0].forces, atol=1e-9)


def test_steps_that_did_not_converge_are_left_out(tmp_path, vasp):
    first, second = vasp.make_steps(2)
    text = vasp.vasprun([first._replace(converged=False), second])
    found, left_out = read(tmp_path / "vasprun.xml", text)
    assert [atoms.calc.results["energy"] for atoms in found] == pytest.approx([second.energy])
    assert left_out == {"steps left out (electronic steps did not converge)": 1}


def test_a_learned_force_field_is_not_dft(tmp_path, vasp):
    text = vasp.vasprun(vasp.make_steps(1))
    without = text[: text.index("<scstep>")] + text[text.rindex("</scstep>") + 9 :]
    found, left_out = read(tmp_path / "vasprun.xml", without)
    assert not found
    assert left_out == {"steps left out (from a learned force field, not from DFT)": 1}


def test_a_file_cut_off_anywhere_gives_its_whole_steps(tmp_path, vasp, every_cut):
    text = vasp.vasprun(vasp.make_steps(4)).encode()
    every_cut(read_vasprun, text, tmp_path / "vasprun.xml", cuts=200)


def test_a_compressed_file_cut_off(tmp_path, vasp):
    packed = gzip.compress(vasp.vasprun(vasp.make_steps(40)).encode(), mtime=0)
    (tmp_path / "vasprun.xml.gz").write_bytes(packed[: len(packed) // 2])
    left_out = Counter()
    found = list(read_vasprun(str(tmp_path / "vasprun.xml.gz"), left_out))
    print(len(found), "of 40 steps in half of the file")
    assert 5 < len(found) < 35
    assert any("end before" in what for what in left_out)


def test_numbers_too_large_for_their_field(tmp_path, vasp):
    steps = vasp.make_steps(2)
    text = vasp.vasprun(steps).replace(f"{steps[0].forces[1, 1]:.8f}", "*********", 1)
    found, left_out = read(tmp_path / "vasprun.xml", text)
    assert len(found) == 1
    assert left_out == {"steps left out (numbers missing or overflowed to ***)": 1}


def test_only_the_pressure_is_computed_with_isif_1(tmp_path, vasp):
    found, left_out = read(tmp_path / "vasprun.xml", vasp.vasprun(vasp.make_steps(1), ISIF="1"))
    assert "stress" not in found[0].calc.results
    assert left_out == {"stresses left out (ISIF 0 computes none, ISIF 1 the pressure only)": 1}


UNCONVERGED = "steps left out (electronic steps did not converge)"
UNREADABLE = "steps left out (numbers missing or overflowed to ***)"
RESPONSE = "<separator name='response functions'><i type='int' name='NELM'> 1</i></separator>"


def test_nelm_of_response_functions_is_another(tmp_path, vasp):
    steps = vasp.make_steps(2)
    steps[1] = steps[1]._replace(converged=False)
    text = vasp.vasprun(steps)
    assert "name='general'" in text
    electronic = text.replace("name='general'", "name='electronic'")
    for text in (
        electronic.replace("</parameters>", RESPONSE + "</parameters>"),
        electronic.replace("<parameters>", "<parameters>" + RESPONSE),
    ):
        found, left_out = read(tmp_path / "vasprun.xml", text)
        assert len(found) == 1 and left_out == {UNCONVERGED: 1}


def test_nelm_of_the_incar_and_of_nobody(tmp_path, vasp):
    text = vasp.vasprun(vasp.make_steps(1))  # with four electronic steps
    without = text.replace('<i name="NELM">60</i>', "")
    assert len(read(tmp_path / "vasprun.xml", without)[0]) == 1
    incar = '<incar><i type="int" name="NELM">     4</i></incar><parameters>'
    found, left_out = read(tmp_path / "vasprun.xml", without.replace("<parameters>", incar))
    assert not found and left_out == {UNCONVERGED: 1}


def test_electronic_steps_of_linear_response_do_not_count(tmp_path, vasp):
    steps = vasp.make_steps(1)
    text = vasp.vasprun(steps)
    response = "<scstep><energy><i name='e_fr_energy'>0.5</i></energy></scstep>" * 100
    text = text.replace("</calculation>", response + "</calculation>")
    found, left_out = read(tmp_path / "vasprun.xml", text)
    assert not left_out
    assert found[0].calc.results["energy"] == pytest.approx(steps[0].energy)


@pytest.mark.parametrize(
    "tags",
    [{"ICHARG": "11"}, {"ICHARG": "12"}, {"IALGO": "2"}, {"ALGO": "Eigenval"}, {"SCALEE": "0.5"}],
)
def test_what_is_not_self_consistent_is_left_out(tmp_path, vasp, tags):
    found, left_out = read(tmp_path / "vasprun.xml", vasp.vasprun(vasp.make_steps(2), **tags))
    assert not found and list(left_out.values()) == [2]
    assert ["not self-consistent" in what for what in left_out] == [True]


@pytest.mark.parametrize("tags", [{"ICHARG": "2"}, {"ALGO": "Exact"}, {"ALGO": "Normal"}])
def test_what_is_self_consistent_is_kept(tmp_path, vasp, tags):
    text = vasp.vasprun(vasp.make_steps(1), **tags)
    assert len(read(tmp_path / "vasprun.xml", text)[0]) == 1


@pytest.mark.parametrize("bad", ["nan", "inf", "*********", "-Infinity", "0.1-123"])
@pytest.mark.parametrize("what", ["positions", "forces", "stress", "energy"])
def test_a_bad_number_costs_its_step(tmp_path, vasp, bad, what):
    steps = vasp.make_steps(3)
    number = {
        "positions": (steps[1].positions @ np.linalg.inv(steps[1].cell))[1, 1],
        "forces": steps[1].forces[1, 1],
        "stress": steps[1].kbar[1, 1],
        "energy": steps[1].free_energy,
    }[what]
    text = vasp.vasprun(steps).replace(f"{number:.8f}", bad)
    found, left_out = read(tmp_path / "vasprun.xml", text)
    energies = [atoms.calc.results["free_energy"] for atoms in found]
    assert energies == pytest.approx([steps[0].free_energy, steps[2].free_energy])
    assert left_out == {UNREADABLE: 1}


@pytest.mark.parametrize("name", ["forces", "positions", "basis"])
def test_a_missing_block_costs_its_step(tmp_path, vasp, name):
    text = vasp.vasprun(vasp.make_steps(3))
    start = text.index(f'<varray name="{name}">', text.index("</calculation>"))
    end = text.index("</varray>", start) + len("</varray>")
    found, left_out = read(tmp_path / "vasprun.xml", text[:start] + text[end:])
    assert len(found) == 2 and left_out == {UNREADABLE: 1}


def test_forces_of_fewer_atoms_cost_their_step(tmp_path, vasp):
    text = vasp.vasprun(vasp.make_steps(2))
    start = text.index("<v>", text.index('<varray name="forces">'))
    end = text.index("</v>", start) + len("</v>")
    found, left_out = read(tmp_path / "vasprun.xml", text[:start] + text[end:])
    assert len(found) == 1 and left_out == {UNREADABLE: 1}


@pytest.mark.parametrize("shear, kept", [(7.24e-6, True), (2.0, False)])
def test_an_asymmetric_stress_costs_the_stress_at_most(tmp_path, vasp, shear, kept):
    (step,) = vasp.make_steps(1)
    kbar = np.diag([0.004, 0.0035, 0.0038])
    kbar[0, 1] = shear
    found, left_out = read(tmp_path / "vasprun.xml", vasp.vasprun([step._replace(kbar=kbar)]))
    assert len(found) == 1
    if kept:
        assert not left_out
        stress = found[0].calc.results["stress"] / 0.0006241509
        np.testing.assert_allclose(stress, -np.array([*np.diag(kbar), 0, 0, shear / 2]), rtol=1e-6)
    else:
        assert "stress" not in found[0].calc.results
        assert left_out == {"stresses left out (not symmetric)": 1}


@pytest.mark.parametrize(
    "name, title, mass, symbol",
    [
        ("r ", "PAW_PBE Zr_sv 04Jan2005", 91.224, "Zr"),
        ("X ", "PAW_PBE Xe 07Sep2000", 131.294, "Xe"),
        ("D ", "PAW_PBE H 15Jun2001", 2.014, "H"),
        ("r ", "unknown", 91.224, "Zr"),
        ("D ", "unknown", 2.014, "H"),
    ],
)
def test_names_that_vasp_truncates(tmp_path, vasp, name, title, mass, symbol):
    text = vasp.vasprun(vasp.make_steps(1))
    text = text.replace("<rc><c>Si </c>", f"<rc><c>{name}</c>")
    text = text.replace("<c>Si</c><c>PAW_PBE", f"<c>{name}</c><c>{mass}</c><c>4.0</c><c>PAW_PBE")
    text = text.replace("PAW_PBE Si 05Jan2001", title)
    found, _ = read(tmp_path / "vasprun.xml", text)
    assert found[0].get_chemical_symbols() == [symbol, "C", "C"]


def test_a_name_that_is_no_element_is_refused(tmp_path, vasp):
    text = vasp.vasprun(vasp.make_steps(1))
    text = text.replace("<c>Si</c>", "<c>Q</c>").replace("PAW_PBE Si 05Jan2001", "unknown")
    with pytest.raises(ValueError, match="names no element"):
        read(tmp_path / "vasprun.xml", text)


def test_damage_in_the_middle_is_not_taken_for_the_end(tmp_path, vasp):
    text = vasp.vasprun(vasp.make_steps(3))
    second = text.index("<calculation>", text.index("</calculation>"))
    found, left_out = read(tmp_path / "vasprun.xml", text[:second] + "<<&" + text[second:])
    assert len(found) == 1
    assert left_out == {"files are damaged in the middle; the steps before that are kept": 1}
