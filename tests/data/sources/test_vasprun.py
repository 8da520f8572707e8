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
