"""Outputs of CP2K in their forms of version 7 and 2025, and trajectories."""

from collections import Counter

import numpy as np
import pytest
from ase import units
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, STRESS, SYMBOLS, assert_read

from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.sources.common import CUT_OFF, UNCONVERGED
from tesseral.data.sources.cp2k import ELSEWHERE, UNCHECKED, read_output, read_trajectory
from tesseral.data.sources.formats import find_format
from tesseral.data.sources.search import find_sources
from tesseral.data.store.read import open_store

HARTREE, FORCE = units.Hartree, units.Hartree / units.Bohr
GPA = -STRESS / units.GPa  # CP2K: positive under compression
NUMBERS = [14, 8]


def header(version="2025.2", project="water", run="ENERGY_FORCE", cell=CELL):
    lengths = np.linalg.norm(cell, axis=1)
    unit = cell / lengths[:, None]
    angles = np.degrees(np.arccos([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]))
    lines = [
        f" CP2K| version string:{'CP2K version ' + version:>58}",
        f" GLOBAL| Project name{project:>60}",
        f" GLOBAL| Run type{run:>64}",
        " CELL_TOP| Vector a [angstrom     1.000     0.000     0.000   |a| =     1.000000",
    ]
    for name, row, length in zip("abc", cell, lengths, strict=True):
        vector = "".join(f"{x:10.3f}" for x in row)
        lines.append(f" CELL| Vector {name} [angstrom]:{vector}   |{name}| ={length:14.8f}")
    names = ("(b,c), alpha", "(a,c), beta ", "(a,b), gamma")
    for name, angle in zip(names, angles, strict=True):
        lines.append(f" CELL| Angle {name} [degree]:{angle:48.8f}")
    lines += [
        " CELL| Periodicity                                                           XYZ",
        " DFT| Spin restricted Kohn-Sham (RKS) calculation                            RKS",
        " FUNCTIONAL| PBE:",
        " FUNCTIONAL| J.P.Perdew, K.Burke, M.Ernzerhof, Phys. Rev. Letter, vol. 77, n 18,",
        " vdW POTENTIAL|          DFT-D3 (Version 3.1)",
        " QS| Density cutoff [a.u.]:                                                200.0",
        " MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM",
        "",
        "   Atom Kind Element         X             Y             Z       Z(eff)      Mass",
    ]
    for i, (symbol, z, position) in enumerate(zip(SYMBOLS, NUMBERS, POSITIONS, strict=True), 1):
        x = "".join(f"{value:14.6f}" for value in position)
        lines.append(f"{i:7d}{i:5d} {symbol:2s}{z:5d}{x}{4:11.4f}{28:11.4f}")
    return "\n".join(lines) + "\n\n"


def evaluation(energy=ENERGY, old=False, converged=True, unit="bar", forces=True):
    said = "SCF run converged in    11 steps" if converged else "SCF run NOT converged"
    label = "energy (a.u.):     " if old else "energy [hartree]   "
    lines = [
        " SCF WAVEFUNCTION OPTIMIZATION",
        f"  *** {said} ***",
        f" ENERGY| Total FORCE_EVAL ( QS ) {label}{energy / HARTREE:28.15f}",
    ]
    rows = FORCES / FORCE
    if forces and old:
        lines += ["", " ATOMIC FORCES in [a.u.]", "", " # Atom   Kind   Element     X     Y     Z"]
        for i, (symbol, row) in enumerate(zip(SYMBOLS, rows, strict=True), 1):
            lines.append(f"{i:7d}{i:7d} {symbol:>6s}   " + "".join(f"{x:15.8f}" for x in row))
        lines.append(" SUM OF ATOMIC FORCES           0.00000000     0.00000000     0.00000000")
    elif forces:
        lines += [" FORCES| Atomic forces [hartree/bohr]", " FORCES|   Atom     x    y    z   |f|"]
        for i, row in enumerate(rows, 1):
            lines.append(f" FORCES|{i:7d}" + "".join(f"{x:18.10E}" for x in row) + "   1.0E+00")
        lines += [" FORCES| Sum      0.0E+00  0.0E+00  0.0E+00", " FORCES| Total atomic force 0.0"]
    if old:
        lines += [" STRESS TENSOR [GPa]", "", "            X               Y               Z"]
        lines += [
            f"  {n}" + "".join(f"{x:16.8f}" for x in r) for n, r in zip("XYZ", GPA, strict=True)
        ]
    else:
        scale = {"bar": 1e4, "GPa": 1.0, "furlong": 1.0}[unit]
        lines += [f" STRESS| Analytical stress tensor [{unit}]", " STRESS|        x      y      z"]
        for n, row in zip("xyz", scale * GPA, strict=True):
            lines.append(f" STRESS|      {n}" + "".join(f"{x:20.11E}" for x in row))
        lines.append(" STRESS| 1/3 Trace                                     -1.52803276373E-01")
    return "\n".join(lines) + "\n\n"


END = "  **** **** ******  **  PROGRAM ENDED AT                 2026-06-17 17:33:48.894\n"


def read(folder, text):
    (folder / "cp2k.out").write_text(text)
    left_out = Counter()
    frames = list(read_output(str(folder / "cp2k.out"), left_out))
    return frames, +left_out


@pytest.mark.parametrize("old", [True, False])
def test_a_single_point(tmp_path, old):
    (atoms,), left_out = read(tmp_path, header() + evaluation(old=old) + END)
    assert_read(atoms, tolerance=2e-6)  # digits of the forces
    assert not left_out
    assert atoms.info["theory"] == "CP2K PBE + D3 5442.28 eV"
    assert find_format(str(tmp_path / "cp2k.out")) == "cp2k-out"


HEXAGONAL = np.array([[16.8691, 0, 0], [-8.43455, 8.43455 * np.sqrt(3), 0], [0, 0, 41.4784]])
SWAP = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("cell, error", [(HEXAGONAL, 2e-6), (HEXAGONAL @ SWAP, 1e-3)])
def test_the_lengths_and_angles_have_more_digits_than_the_vectors(tmp_path, cell, error):
    (atoms,), _ = read(tmp_path, header(cell=cell) + evaluation() + END)
    np.testing.assert_allclose(atoms.cell.cellpar(), [*[16.8691] * 2, 41.4784, 90, 90, 120], 1e-6)
    np.testing.assert_allclose(atoms.cell.array, cell, atol=error)


def test_outputs_joined_in_one_file(tmp_path):
    one = header() + evaluation() + END
    frames, left_out = read(tmp_path, one + one)
    assert len(frames) == 2
    assert not left_out


def test_units_of_the_stress(tmp_path):
    (atoms,), _ = read(tmp_path, header() + evaluation(unit="GPa") + END)
    assert_read(atoms, tolerance=2e-6)
    with pytest.raises(LookupError, match="furlong"):
        read(tmp_path, header() + evaluation(unit="furlong") + END)


@pytest.mark.parametrize("ignored", [True, False])
def test_unconverged_calculations_are_counted(tmp_path, ignored):
    text = evaluation(converged=False)
    text = text if ignored else text.partition(" ENERGY|")[0]
    frames, left_out = read(tmp_path, header() + text + END)
    assert not frames
    assert left_out == {UNCONVERGED: 1}


def test_later_steps_are_not_given_the_first_positions(tmp_path):
    steps = "".join(evaluation(ENERGY + i) for i in range(3))
    frames, left_out = read(tmp_path, header(run="MD") + steps + END)
    assert len(frames) == 1
    assert left_out == {ELSEWHERE: 2}


def test_a_killed_calculation(tmp_path):
    text = header() + evaluation()
    for cut, count in ((len(text), 1), (text.index("FORCES| Sum"), 0), (text.index("ENERGY|"), 0)):
        frames, left_out = read(tmp_path, text[:cut])
        assert (len(frames), left_out[CUT_OFF]) == (count, 1)


def test_vectors_that_disagree_with_their_lengths_are_refused(tmp_path):
    text = (header() + evaluation() + END).replace("-1.300", "-1.900", 1)
    with pytest.raises(ValueError, match="do not have the lengths and angles"):
        read(tmp_path, text)


def test_several_force_evaluations_are_refused(tmp_path):
    other = evaluation().replace("( QS )", "( QMMM )")
    with pytest.raises(ValueError, match=r"several FORCE_EVAL \(QMMM, QS\)"):
        read(tmp_path, header() + evaluation() + other + END)


def xyz(rows, energies):
    text = ""
    for step, energy in enumerate(energies):
        text += f"{len(rows):8d}\n i = {step:8d}, time = {step / 2:12.3f}, E = {energy:20.10f}\n"
        for symbol, row in zip(SYMBOLS, rows, strict=True):
            text += f" {symbol:2s}" + "".join(f"{x:20.10f}" for x in row) + "\n"
    return text


def columns(title, table, steps):
    names = "".join(f"{name:>20s}" for name in title)
    lines = [f"#   Step   Time [fs]{names}"]
    for step in range(steps):
        numbers = "".join(f"{x:20.10f}" for x in np.ravel(table))
        lines.append(f"{step:8d}{step / 2:12.3f}{numbers}")
    return "\n".join(lines) + "\n"


def write_trajectory(folder, steps=2, forces=True, cell=True, stress=True, name="water"):
    energies = [(ENERGY + i) / HARTREE for i in range(steps)]
    (folder / f"{name}-pos-1.xyz").write_text(xyz(POSITIONS, energies))
    if forces:
        (folder / f"{name}-frc-1.xyz").write_text(xyz(FORCES / FORCE, energies))
    if cell:
        table = columns(["Ax [Angstrom]"], [*CELL.ravel(), 1.0], steps)
        (folder / f"{name}-1.cell").write_text(table)
    if stress:
        (folder / f"{name}-1.stress").write_text(columns(["xx [bar]"], 1e4 * GPA, steps))
    return str(folder / f"{name}-pos-1.xyz")


def trajectory(path):
    left_out = Counter()
    return list(read_trajectory(path, left_out)), +left_out


def test_a_trajectory_and_the_files_next_to_it(tmp_path):
    path = write_trajectory(tmp_path)
    assert find_format(path) == "cp2k-xyz"
    frames, left_out = trajectory(path)
    assert len(frames) == 2
    assert_read(frames[0])
    assert left_out == {UNCHECKED: 2}


def test_a_trajectory_with_the_output_next_to_it(tmp_path):
    path = write_trajectory(tmp_path, steps=3, forces=False, cell=False, stress=False)
    steps = [evaluation(ENERGY + i, converged=i != 1) for i in range(3)]
    (tmp_path / "run.out").write_text(header(run="MD") + "".join(steps) + END)
    frames, left_out = trajectory(path)
    energies = [atoms.calc.results["energy"] - ENERGY for atoms in frames]
    np.testing.assert_allclose(energies, [0, 2], atol=1e-8)
    assert left_out == {UNCONVERGED: 1}
    assert_read(frames[0])
    assert frames[1].info["theory"].startswith("CP2K PBE")


def test_a_trajectory_without_cell_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no cell of step 0"):
        trajectory(write_trajectory(tmp_path, cell=False))


def test_a_cell_that_changes_is_not_taken_from_the_output(tmp_path):
    path = write_trajectory(tmp_path, cell=False)
    head = header(run="MD") + " MD| Ensemble Type                                         NPT_F\n"
    (tmp_path / "run.out").write_text(head + evaluation() + evaluation(ENERGY + 1) + END)
    with pytest.raises(ValueError, match="no cell of step 0"):
        trajectory(path)


def test_steps_that_a_restarted_run_repeats(tmp_path):
    path = write_trajectory(tmp_path, steps=3)
    for name, factor in (("pos", 1.0), ("frc", 2.0)):
        file = tmp_path / f"water-{name}-1.xyz"
        rows = POSITIONS if name == "pos" else factor * FORCES / FORCE
        again = xyz(rows, [(ENERGY + i + 0.5) / HARTREE for i in range(4)])
        file.write_text(file.read_text() + again)
    for name, table in (("cell", [*2 * CELL.ravel(), 1.0]), ("stress", 1e4 * GPA)):
        again = columns(["x"], table, 4).partition("\n")[2]
        file = tmp_path / f"water-1.{name}"
        file.write_text(file.read_text() + again)
    frames, _ = trajectory(path)
    assert len(frames) == 7
    for i, atoms in enumerate(frames):
        factor = 1 + (i >= 3)
        np.testing.assert_allclose(atoms.calc.results["forces"], factor * FORCES, atol=1e-6)
        np.testing.assert_allclose(atoms.cell.array, factor * CELL, atol=1e-6)


def test_a_trajectory_that_is_cut_off(tmp_path):
    path = write_trajectory(tmp_path)
    text = (tmp_path / "water-pos-1.xyz").read_text()
    (tmp_path / "water-pos-1.xyz").write_text(text[:-30])
    frames, left_out = trajectory(path)
    assert len(frames) == left_out[CUT_OFF] == 1


def test_forces_alone_are_no_trajectory(tmp_path):
    write_trajectory(tmp_path)
    with pytest.raises(ValueError, match="import PROJECT-pos-1.xyz"):
        trajectory(str(tmp_path / "water-frc-1.xyz"))


def test_other_units_of_the_columns_are_refused(tmp_path):
    path = write_trajectory(tmp_path)
    text = (tmp_path / "water-1.stress").read_text().replace("[bar]", "[GPa]")
    (tmp_path / "water-1.stress").write_text(text)
    with pytest.raises(ValueError, match=r"name the unit \[bar\]"):
        trajectory(path)


def test_of_a_folder_each_step_is_imported_once(tmp_path):
    for name in ("md", "point"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    write_trajectory(tmp_path / "runs" / "md")
    steps = evaluation() + evaluation(ENERGY + 1)
    (tmp_path / "runs" / "md" / "run.out").write_text(header(run="MD") + steps + END)
    (tmp_path / "runs" / "point" / "run.out").write_text(header() + evaluation() + END)
    names = [source.name for source in find_sources([str(tmp_path / "runs")])]
    assert names == ["md/water-pos-1.xyz", "point/run.out"]
    import_structures(
        ImportConfig(sources=[str(tmp_path / "runs")], output=str(tmp_path / "out.h5"))
    )
    groups = open_store(tmp_path / "out.h5").texts("group")
    assert groups == [names[0], names[0], names[1]]
