"""Outputs of ABINIT: single calculations and relaxations."""

from collections import Counter

import numpy as np
import pytest
from ase import units
from ase.io.formats import UnknownFileTypeError
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, STRESS, assert_read

from tesseral.data.sources.abinit import read_abinit
from tesseral.data.sources.common import CUT_OFF, UNCONVERGED
from tesseral.data.sources.formats import find_format

BOHR, HARTREE = units.Bohr, units.Hartree
SIGMA = STRESS * BOHR**3 / HARTREE
END = "\n Calculation completed.\n.Delivered   0 WARNINGs and   2 COMMENTs to log file.\n"
ECHO = """\
.Version 10.5.8.2 of ABINIT, released Oct 2025.
.(MPI version, prepared for a x86_64_linux_gnu13.2 computer)

 -outvars: echo values of preprocessed input variables --------
            acell      1.0000000000E+00  1.0000000000E+00  1.0000000000E+00 Bohr
             ecut      1.20000000E+01 Hartree
-          fftalg         512
              ixc     -101130
P           mkmem           10
            natom           2
             nkpt          10
           nsppol           1
            typat      1  2
            znucl       14.00000    8.00000

================================================================================
"""


def rows(table, width=22, start=""):
    return "".join(
        f"{start}{i if start else ''}" + "".join(f"{x:{width}.14f}" for x in row) + "\n"
        for i, row in enumerate(table, 1)
    )


def dataset(number=1):
    cell = "".join(
        f" R({i})=" + "".join(f"{x:11.7f}" for x in row) + f"  G({i})= -0.0980873  0.0980873\n"
        for i, row in enumerate(CELL / BOHR, 1)
    )
    title = f"== DATASET {number:2d} ===================================================\n"
    return f"{title} Real(R)+Recip(G) space primitive vectors, cartesian coordinates:\n{cell}"


def scf(energy=ENERGY, converged=True):
    s = SIGMA
    text = (
        f" ETOT  1  -8.5206684637965    -8.5E+00\n ETOT  5 {energy / HARTREE:18.12f}    -1.2E-09\n"
    )
    if not converged:
        text += "\n scprqt:  WARNING -\n  nstep=     5 was not enough SCF cycles to converge;\n"
    pairs = (((0, 0), (2, 1)), ((1, 1), (2, 0)), ((2, 2), (1, 0)))
    text += "\n Cartesian components of stress tensor (hartree/bohr^3)\n"
    for (i, j), (k, m) in pairs:
        text += (
            f"  sigma({i + 1} {j + 1})={s[i, j]:16.8E}  sigma({k + 1} {m + 1})={s[k, m]:16.8E}\n"
        )
    return text + "\n"


def at_end():
    return (
        f" cartesian coordinates (angstrom) at end:\n{rows(POSITIONS, start='    ')}\n"
        f" cartesian forces (hartree/bohr) at end:\n{rows(FORCES * BOHR / HARTREE, start='    ')}"
        " frms,max,avg= 0.0000000E+00 0.0000000E+00   0.000E+00 h/b\n\n"
        f" cartesian forces (eV/Angstrom) at end:\n{rows(FORCES, start='    ')}\n"
    )


def move(energy=ENERGY, cell=True):
    """What is printed of a step of a relaxation, and the next positions."""
    vectors = (
        f" Real space primitive translations (rprimd) [bohr]\n{rows(CELL / BOHR)}" if cell else ""
    )
    return (
        f" Cartesian coordinates (xcart) [bohr]\n{rows(POSITIONS / BOHR)}"
        f" Reduced coordinates (xred)\n{rows(np.zeros((2, 3)))}"
        " Cartesian forces (fcart) [Ha/bohr]; max,rms= 1.0E-02 1.0E-02 (free atoms)\n"
        f"{rows(FORCES * BOHR / HARTREE)}{vectors}"
        f" Total energy (etotal) [Ha]={energy / HARTREE:22.14E}\n"
        f" Cartesian coordinates (xcart) [bohr]\n{rows(np.ones((2, 3)))}"
    )


def read(folder, text):
    (folder / "run.abo").write_text(text)
    left_out = Counter()
    return list(read_abinit(str(folder / "run.abo"), left_out)), +left_out


def test_a_single_calculation(tmp_path):
    (atoms,), left_out = read(tmp_path, ECHO + dataset() + scf() + at_end() + END)
    assert_read(atoms)
    assert not left_out
    assert atoms.info["theory"] == "ABINIT PBE 326.537 eV"
    assert find_format(str(tmp_path / "run.abo")) == "abinit-out"


@pytest.mark.parametrize("cell", [True, False])
def test_each_step_of_a_relaxation_once(tmp_path, cell):
    text = ECHO + dataset() + scf() + move(cell=cell) + scf(ENERGY + 1) + move(ENERGY + 1, cell)
    frames, left_out = read(tmp_path, text + at_end() + END)
    assert [atoms.calc.results["energy"] - ENERGY for atoms in frames] == pytest.approx([0, 1])
    assert_read(frames[0])
    assert not left_out


def test_datasets_without_self_consistency_are_no_structures(tmp_path):
    bands = dataset(2) + " Non-SCF case, kpt    1 (  0.5  0.0  0.0), residuals and eigenvalues=\n"
    frames, left_out = read(tmp_path, ECHO + dataset() + scf() + at_end() + bands + at_end() + END)
    assert len(frames) == 1
    assert not left_out


def test_variables_of_a_dataset(tmp_path):
    echo = ECHO.replace("typat      1  2", "typat1     1  2\n            typat2     2  1")
    text = echo + "".join(dataset(i) + scf() + at_end() for i in (1, 2)) + END
    frames, _ = read(tmp_path, text)
    assert [atoms.get_chemical_symbols() for atoms in frames] == [["Si", "O"], ["O", "Si"]]


@pytest.mark.parametrize("relaxed", [True, False])
def test_unconverged_calculations_are_counted(tmp_path, relaxed):
    text = ECHO + dataset() + scf(converged=False) + (move() if relaxed else "")
    text += scf() + move() if relaxed else ""
    frames, left_out = read(tmp_path, text + at_end() + END)
    assert len(frames) == relaxed
    assert left_out == {UNCONVERGED: 1}


def test_a_killed_calculation(tmp_path):
    text = ECHO + dataset() + scf() + move() + scf() + move()
    frames, left_out = read(tmp_path, text[: text.rindex("(fcart)") + 100])
    assert len(frames) == 1
    assert left_out == {CUT_OFF: 1}


def test_an_output_of_no_known_code_is_not_taken_for_one_of_pw_x(tmp_path):
    (tmp_path / "run.out").write_text("nothing known\n" * 100)
    with pytest.raises(UnknownFileTypeError):
        find_format(str(tmp_path / "run.out"))
