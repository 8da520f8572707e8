"""Structures of RuNNer and n2p2."""

from collections import Counter

import pytest
from ase import units
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, SYMBOLS, assert_read

from tesseral.data.sources.common import CUT_OFF
from tesseral.data.sources.formats import find_format
from tesseral.data.sources.runner import read_runner

ATOMIC = {"length_unit": "Bohr", "energy_unit": "Ha"}


def structure(length=units.Bohr, energy=units.Hartree, periodic=True):
    lines = ["begin", "comment a structure"]
    if periodic:
        lines += ["lattice " + " ".join(f"{x:.10f}" for x in row / length) for row in CELL]
    for symbol, position, force in zip(SYMBOLS, POSITIONS, FORCES, strict=True):
        x, f = position / length, force * length / energy
        place = " ".join(f"{value:.10f}" for value in x)
        pull = " ".join(f"{value:.10f}" for value in f)
        lines.append(f"atom {place} {symbol} 0.0 0.0 {pull}")
    return "\n".join([*lines, f"energy {ENERGY / energy:.10f}", "charge 0.0", "end"]) + "\n"


def read(folder, text, **options):
    (folder / "input.data").write_text(text)
    left_out = Counter()
    return list(read_runner(str(folder / "input.data"), left_out, **options)), left_out


@pytest.mark.parametrize("periodic", [True, False])
def test_atomic_units(tmp_path, periodic):
    frames, _ = read(tmp_path, 2 * structure(periodic=periodic), **ATOMIC)
    assert len(frames) == 2
    assert_read(frames[1], stress=False, periodic=periodic)


def test_other_units(tmp_path):
    frames, _ = read(tmp_path, structure(1.0, 1.0), length_unit="A", energy_unit="eV")
    assert_read(frames[0], stress=False)


def test_the_unit_of_the_forces_can_differ(tmp_path):
    options = {"length_unit": "A", "energy_unit": "eV", "forces_unit": "meV/A"}
    frames, _ = read(tmp_path, structure(1.0, 1.0), **options)
    assert frames[0].calc.results["forces"][0, 0] == pytest.approx(FORCES[0, 0] / 1000)


@pytest.mark.parametrize("given", [{}, {"energy_unit": "Ha"}])
def test_units_are_asked_for(tmp_path, given):
    with pytest.raises(ValueError, match="does not contain its units; give `length_unit`"):
        read(tmp_path, structure(), **given)


def test_a_structure_that_is_cut_off_is_counted(tmp_path):
    frames, left_out = read(tmp_path, structure() + structure()[:200], **ATOMIC)
    assert len(frames) == left_out[CUT_OFF] == 1


def test_the_last_line_needs_no_end(tmp_path):
    frames, left_out = read(tmp_path, structure().rstrip(), **ATOMIC)
    assert (len(frames), left_out[CUT_OFF]) == (1, 0)


def test_incomplete_structures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs one line `energy`"):
        read(tmp_path, structure().replace("energy", "comment"), **ATOMIC)


@pytest.mark.parametrize("name", ["input.data", "train.txt"])
def test_it_is_recognised(tmp_path, name):
    (tmp_path / name).write_text(structure())
    assert find_format(str(tmp_path / name)) == "runner"
