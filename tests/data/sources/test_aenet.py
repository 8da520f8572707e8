"""Structures of aenet."""

from collections import Counter

import pytest
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, SYMBOLS, assert_read

from tesseral.data.sources.aenet import read_aenet
from tesseral.data.sources.formats import find_format


def rows(periodic=True):
    lines = []
    for symbol, position, force in zip(SYMBOLS, POSITIONS, FORCES, strict=True):
        numbers = " ".join(f"{x:.8f}" for x in [*position, *force])
        lines.append(f"{symbol} {numbers}")
    return "\n".join(lines) + "\n"


def crystal(unit="eV"):
    cell = "\n".join(" ".join(f"{x:.8f}" for x in row) for row in CELL)
    head = f"# total energy = {ENERGY:.8f} {unit}\n\nCRYSTAL\nPRIMVEC\n{cell}\nPRIMCOORD\n2 1\n"
    return head + rows()


def read(folder, text):
    (folder / "a.xsf").write_text(text)
    return list(read_aenet(str(folder / "a.xsf"), Counter()))


def test_a_crystal_with_forces_in_ev(tmp_path):
    (atoms,) = read(tmp_path, crystal())
    assert_read(atoms, stress=False)
    assert find_format(str(tmp_path / "a.xsf")) == "aenet-xsf"


def test_a_molecule(tmp_path):
    (atoms,) = read(tmp_path, f"# total energy = {ENERGY:.8f} eV\n\nATOMS\n{rows()}")
    assert_read(atoms, stress=False, periodic=False)


def test_the_last_line_needs_no_end(tmp_path):
    (atoms,) = read(tmp_path, crystal().rstrip())
    assert_read(atoms, stress=False)


def test_another_unit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the energy is in Ha"):
        read(tmp_path, crystal("Ha"))


def test_a_file_that_is_cut_off_is_an_error(tmp_path):
    with pytest.raises(EOFError):
        read(tmp_path, crystal().rsplit("O ", 1)[0])


def test_xsf_of_other_programs_is_left_to_ase(tmp_path):
    (tmp_path / "a.xsf").write_text(crystal().split("\n", 2)[2])
    assert find_format(str(tmp_path / "a.xsf")) == "xsf"
