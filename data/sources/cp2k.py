"""Structures of CP2K: its text output, and the trajectory files of MD and relaxations.

The output contains energies, and with ``&PRINT &FORCES`` and ``&STRESS_TENSOR`` in ``&FORCE_EVAL``
also forces and stresses, but only the first positions. Trajectories are PROJECT-pos-1.xyz (Å, with
energies in hartree) with PROJECT-frc-1.xyz (hartree/bohr), PROJECT-1.cell (Å) and PROJECT-1.stress
(bar) next to it. The output next to them says whether each step converged, and contains whatever
the other files lack; its values belong to the step with the same energy.

CP2K's stress is positive under compression. Its energy includes -TS of the electrons.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import cellpar_to_cell
from ase.io.formats import open_with_compression

from tesseral.data.sources.common import (
    CUT_OFF,
    UNCONVERGED,
    UNREADABLE,
    Array,
    Format,
    chemical_symbol,
    labelled_atoms,
    table,
    take,
    whole_lines,
)
from tesseral.data.sources.settings import settings_text
from tesseral.data.units import ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS, stress_tensor

ELSEWHERE = (
    "steps left out (CP2K's output has only the first positions; import PROJECT-pos-1.xyz next to "
    "the output)"
)
UNCHECKED = (
    "steps kept although it is not known whether they converged (CP2K's output is not next to the "
    "trajectory)"
)
ENERGY = re.compile(r" ENERGY\| Total FORCE_EVAL \( (.*?) \) energy \S+\s+(\S+)")
UNIT = re.compile(r"\[(\S+)\]")
VECTOR = re.compile(r" CELL\| Vector ([abc]) \[angstrom\]:(.*)\|[abc]\| =\s*(\S+)")
ANGLE = re.compile(r" CELL\| Angle .*(?:alpha|beta|gamma) +\[degree\]:\s*(\S+)")
TITLE = re.compile(r"\s*i =\s*(\d+),.*\bE =\s*(\S+)")
ENSEMBLE = re.compile(r" MD\w*\| Ensemble type", re.IGNORECASE)
FUNCTIONAL = re.compile(r" FUNCTIONAL\| (?!ROUTINE)(\S+):\s*$")
FORCES = {"a.u.": "Ha/Bohr", "hartree/bohr": "Ha/Bohr", "ev/angstrom": "eV/A"}
TABLES = set("0123456789-")  # first characters of most lines, which are not needed
NEXT = ("ATOMIC COORDINATES IN", "SCF WAVEFUNCTION OPTIMIZATION")  # begin an evaluation
SAME = 1e-10  # hartree; energies of trajectories have 10 decimals


@dataclass
class _Run:
    """Values that CP2K prints at the start of a run."""

    version: str = ""
    project: str = ""
    numbers: list[int] = field(default_factory=list)
    positions: Array | None = None  # Å
    vectors: list[list[float]] = field(default_factory=list)  # Å, three decimals
    lengths: list[float] = field(default_factory=list)  # Å
    angles: list[float] = field(default_factory=list)  # degrees
    pbc: tuple[bool, bool, bool] = (True, True, True)
    moving_cell: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    additions: list[str] = field(default_factory=list)
    evaluations: set[str] = field(default_factory=set)

    def cell(self) -> Array | None:
        """Cell in Å: the printed vectors, with the lengths and angles, which have more digits.

        Raises:
            ValueError: the vectors have other lengths or angles.
        """
        if len(self.vectors) < 3 or len(self.angles) < 3:
            return None
        exact = cellpar_to_cell([*self.lengths[-3:], *self.angles[-3:]])
        rough = np.array(self.vectors[-3:])
        if np.abs(exact - rough).max() < 1e-3:  # a along x, b in the xy plane
            return np.asarray(exact, dtype=np.float64)
        left, _, right = np.linalg.svd(np.linalg.solve(exact, rough))
        turned: Array = exact @ left @ right  # the rotation closest to the printed vectors
        # Three decimals turn short vectors more than long ones.
        if not np.abs(turned - rough).max() < 3e-3 * np.linalg.cond(exact):
            raise ValueError(
                f"the vectors of the cell, {rough.tolist()} Å, do not have the lengths and angles "
                f"that the output states, {[*self.lengths[-3:], *self.angles[-3:]]}; run it again"
            )
        return turned

    def description(self) -> str:
        """Settings as text."""
        name = " ".join([self.settings.get("functional", ""), *self.additions]).strip()
        code = f"CP2K {self.version}"
        return settings_text({"code": code, **self.settings, "functional": name})


@dataclass
class _Results:
    """Labels of one evaluation in eV and Å; the stress is positive under tension."""

    energy: float | None = None  # hartree
    failed: bool = False
    readable: bool = True
    forces: Array | None = None
    stress: Array | None = None
    numbers: list[int] = field(default_factory=list)
    positions: Array | None = None
    cell: Array | None = None


class _Frame(NamedTuple):
    """Frame of a trajectory in XYZ form."""

    step: int
    energy: float  # hartree
    symbols: list[str]
    rows: Array  # (n, 3) in the unit of the file

    def belongs(self, other: _Frame) -> bool:
        """Return whether two frames are of the same step of the same run."""
        return self.step == other.step and abs(self.energy - other.energy) < SAME


def read_output(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Converged structures of a CP2K output that has their positions.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.
    """
    for run, results in _evaluations(path, left_out):
        if results.positions is None:
            left_out[ELSEWHERE] += 1
        elif results.failed:
            left_out[UNCONVERGED] += 1
        elif not results.readable:
            left_out[UNREADABLE] += 1
        else:
            if results.cell is None:
                raise ValueError(
                    "the output has no cell; CP2K prints it from PRINT_LEVEL MEDIUM on"
                )
            symbols = [chemical_symbols[number] for number in results.numbers]
            yield _atoms(run, symbols, results.positions, results.cell, results)


def read_trajectory(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Converged frames of PROJECT-pos-1.xyz with the values of the files next to it.

    Raises:
        ValueError: the file contains forces, or there is no cell.
    """
    place, project = _project(path)
    forces = _optional_frames(place, f"{project}-frc-1.xyz")
    outputs = _outputs_beside(place, project, left_out)
    cells = _columns(place / f"{project}-1.cell", "[Angstrom]", slice(2, 11))
    stresses = _columns(place / f"{project}-1.stress", "[bar]", slice(2, 11))
    run = outputs[0][0] if outputs else _Run()
    lattice = outputs[0][1].cell if outputs else None
    printed = [results.energy for _, results in outputs]
    force, last = next(forces, None), -1
    seen: Counter[int] = Counter()  # a restarted run repeats steps
    for frame in _frames(path, left_out):
        found = _same(printed, frame.energy)
        if found is None:
            left_out[UNCHECKED] += 1
            results = _Results(cell=lattice)
        else:
            run, results = outputs[found][0], replace(outputs[found][1])
        results.energy = frame.energy
        while (
            force and not force.belongs(frame) and (force.step < frame.step or frame.step <= last)
        ):
            force = next(forces, None)
        if force and force.belongs(frame):
            results.forces = FORCE_UNITS["Ha/Bohr"] * force.rows
        stress = _of_step(stresses, frame.step, seen)
        if stress is not None:
            results.stress = -STRESS_UNITS["bar"] * stress_tensor(stress.reshape(3, 3))
        cell = _of_step(cells, frame.step, seen)
        if cell is None and not cells and not run.moving_cell:
            cell = results.cell
        seen[frame.step] += 1
        last = frame.step
        if results.failed:
            left_out[UNCONVERGED] += 1
        elif not results.readable:
            left_out[UNREADABLE] += 1
        else:
            if cell is None:
                raise ValueError(
                    f"there is no cell of step {frame.step}: {project}-1.cell lacks it, and there "
                    "is no output of a run with constant cell next to it; CP2K writes the file "
                    "with &MOTION &PRINT &CELL"
                )
            symbols = [chemical_symbol(label) for label in frame.symbols]
            yield _atoms(run, symbols, frame.rows, cell.reshape(3, 3), results)


def has_trajectory(path: str) -> bool:
    """Return whether the trajectory of an output lies next to it."""
    with open_with_compression(path, "rb") as file:
        found = re.search(rb"GLOBAL\| Project name +(\S+)", file.read(65536))
    name = f"{found[1].decode()}-pos-1.xyz" if found else ""
    return bool(name) and (Path(path).parent / name).is_file()


def _atoms(
    run: _Run, symbols: list[str], positions: Array, cell: Array, results: _Results
) -> Atoms:
    """Atoms with their labels."""
    assert results.energy is not None
    energy = ENERGY_UNITS["Ha"] * results.energy
    return labelled_atoms(
        symbols,
        positions,
        cell,
        pbc=run.pbc,
        settings=run.description() if run.version else "",
        stress=results.stress,
        forces=results.forces,
        energy=energy,
        free_energy=energy,
    )


def _evaluations(path: str, left_out: Counter[str]) -> Iterator[tuple[_Run, _Results]]:
    """Evaluations in an output, each with the run it belongs to."""
    lines = whole_lines(path)
    run, results, ended, with_stress = _Run(), _Results(), False, False
    try:
        for line in lines:
            if line.lstrip()[:1] in TABLES:
                continue
            starts = line.startswith(" CP2K| version string:")
            if starts or any(mark in line.upper() for mark in NEXT):
                if results.energy is not None:
                    yield run, results
                    with_stress = with_stress or results.stress is not None
                    results = _Results()
            if starts:
                left_out[CUT_OFF] += bool(run.version) and not ended
                run, results, ended = _Run(version=line.split()[-1]), _Results(), False
            elif "PROGRAM ENDED AT" in line:
                ended = True
            elif (found := ENERGY.match(line)) is not None:
                _check_kind(run, found[1])
                results.energy = float(found[2])
                results.numbers, results.positions = run.numbers, run.positions
                results.cell, run.positions = run.cell(), None
            elif not _read_results(line, lines, results):
                _read_setting(line, lines, run)
    except EOFError:
        results, ended = _Results(), False
    # If the file is truncated within its results, the last structure would lack labels.
    whole = results.forces is not None and not (with_stress and results.stress is None)
    if results.energy is not None and (ended or whole):
        yield run, results
    left_out[UNCONVERGED] += results.energy is None and results.failed  # CP2K has stopped there
    left_out[CUT_OFF] += not ended


def _check_kind(run: _Run, kind: str) -> None:
    """Refuse calculations whose energies come from several force evaluations."""
    run.evaluations.add(kind)
    if len(run.evaluations) > 1:
        raise ValueError(
            f"it has energies of several FORCE_EVAL ({', '.join(sorted(run.evaluations))}), as in "
            "QM/MM; convert the ones you want to extxyz"
        )


def _read_results(line: str, lines: Iterator[str], results: _Results) -> bool:
    """Read the results that begin at a line, and return whether there were any.

    Raises:
        EOFError: the file ends within them.
    """
    try:
        if "SCF run converged" in line:
            results.failed = False
        elif "SCF run NOT converged" in line or "outer SCF loop FAILED" in line:
            results.failed = True
        elif "ATOMIC FORCES in [" in line or "FORCES| Atomic forces [" in line:
            results.forces = _read_forces(line, lines)
        elif " STRESS TENSOR [" in line or "STRESS| Analytical stress tensor [" in line:
            results.stress = _read_stress(line, lines)
        else:
            return False
    except ValueError:
        results.readable = False
    return True


def _read_forces(line: str, lines: Iterator[str]) -> Array:
    """Table of forces in the unit that its title names, in eV/Å."""
    factor = _factor({key: FORCE_UNITS[unit] for key, unit in FORCES.items()}, line)
    rows: list[str] = []
    for row in lines:
        words = row.removeprefix(" FORCES|").split()
        if words[:1] == ["SUM"] or words[:1] == ["Sum"]:
            return factor * table(rows, 3)
        if words and words[0].isdigit():
            rows.append(row)
    raise EOFError("the file ends within the forces")


def _read_stress(line: str, lines: Iterator[str]) -> Array:
    """Table of a stress in the unit that its title names, in eV/Å³ and positive under tension."""
    factor = _factor({unit.lower(): value for unit, value in STRESS_UNITS.items()}, line)
    if next((row for row in lines if row.strip()), None) is None:  # the names of the columns
        raise EOFError("the file ends within the stress")
    return -factor * stress_tensor(table(take(lines, 3), 3))


def _factor(units: Mapping[str, float], title: str) -> float:
    """Factor of the unit in the title of a table.

    Raises:
        LookupError: the unit is not known.
    """
    found = UNIT.search(title)
    if not found or found[1].lower() not in units:
        raise LookupError(f"the unit in {title.strip()!r} is none of {', '.join(units)}")
    return units[found[1].lower()]


def _read_setting(line: str, lines: Iterator[str], run: _Run) -> None:
    """Read a setting of the run, its cell or its atoms.

    Raises:
        EOFError: the file ends within a table.
    """
    if "ATOMIC COORDINATES IN ANGSTROM" in line.upper():
        _read_positions(lines, run)
    elif found := VECTOR.match(line):
        run.vectors.append([float(word) for word in found[2].split()])
        run.lengths.append(float(found[3]))
    elif found := ANGLE.match(line):
        run.angles.append(float(found[1]))
    elif line.startswith((" CELL| Periodicity", " CELL| PERIODICITY")):
        x, y, z = (axis in line.split()[-1].upper() for axis in "XYZ")
        run.pbc = (x, y, z)
    elif line.startswith(" GLOBAL| Run type") or ENSEMBLE.match(line):
        run.moving_cell |= line.split()[-1].startswith(("CELL_OPT", "NPT", "NPE"))
    elif line.startswith(" GLOBAL| Project name"):
        run.project = line.split()[-1]
    elif found := FUNCTIONAL.match(line):
        names = run.settings.get("functional", "").split(" + ") + [found[1]]
        run.settings["functional"] = " + ".join(dict.fromkeys(name for name in names if name))
    elif line.startswith(" QS| Density cutoff [a.u.]:"):
        run.settings["cutoff"] = f"{float(line.split()[-1]) * ENERGY_UNITS['Ha']:.6g} eV"
    elif line.startswith(" DFT| Spin"):
        run.settings["spin"] = "collinear" if "unrestricted" in line else "none"
    elif line.startswith(" DFT+U|"):
        run.additions += ["+ U"] * ("+ U" not in run.additions)
    elif line.startswith(" vdW POTENTIAL|") and "DFT-D" in line:
        name = "+ D2" if "DFT-D2" in line else "+ D4" if "DFT-D4" in line else "+ D3"
        run.additions += [name] * (name not in run.additions)


def _read_positions(lines: Iterator[str], run: _Run) -> None:
    """Read the table of atoms, which ends with an empty line."""
    rows: list[list[str]] = []
    for line in lines:
        words = line.split()
        if words and words[0].isdigit():
            rows.append(words)
        elif rows:
            break
    else:
        raise EOFError("the file ends within the positions")
    # atom, kind, element, atomic number, x, y, z
    run.numbers = [int(words[3]) for words in rows]
    run.positions = np.array([[float(word) for word in words[4:7]] for words in rows])


def _project(path: str) -> tuple[Path, str]:
    """Folder and project name of a trajectory.

    Raises:
        ValueError: the file is not one of positions.
    """
    name = re.fullmatch(r"(.*)-pos-\d+\.xyz", Path(path).name)
    if name is None:
        raise ValueError(
            "it is a trajectory of CP2K, but not one of positions under its own name; import "
            "PROJECT-pos-1.xyz, with which PROJECT-frc-1.xyz, PROJECT-1.cell and PROJECT-1.stress "
            "are read"
        )
    return Path(path).parent, name[1]


def _outputs_beside(
    place: Path, project: str, left_out: Counter[str]
) -> list[tuple[_Run, _Results]]:
    """Evaluations of the outputs of a project in a folder, sorted by energy."""
    written = (place / f"{project}-frc-1.xyz").is_file()
    found = []
    for path in sorted(place.glob("*.out*")) + sorted(place.glob("*.log*")):
        with open_with_compression(str(path), "rb") as file:
            if not OUTPUT.recognise(file.read(65536)):
                continue
        for run, results in _evaluations(str(path), left_out):
            if run.project == project:
                kept = replace(results, positions=None, forces=None if written else results.forces)
                found.append((run, kept))
    return sorted(found, key=lambda each: each[1].energy or 0.0)


def _same(printed: list[float | None], energy: float) -> int | None:
    """Index of an energy among sorted ones."""
    index = int(np.searchsorted(np.array(printed, dtype=float), energy - SAME))
    if index < len(printed) and abs(float(printed[index] or 0.0) - energy) < SAME:
        return index
    return None


def _optional_frames(place: Path, name: str) -> Iterator[_Frame]:
    """Frames of a file that may be absent."""
    if (place / name).is_file():
        yield from _frames(str(place / name), Counter())


def _frames(path: str, left_out: Counter[str]) -> Iterator[_Frame]:
    """Frames of an XYZ file of CP2K; a cut-off last one is left out and counted."""
    lines = whole_lines(path)
    for first in lines:
        try:
            title, *rows = take(lines, 1 + int(first))
        except EOFError:
            left_out[CUT_OFF] += 1
            return
        found = TITLE.match(title)
        if found is None:
            raise ValueError(f"{title.strip()!r} is not a title of a frame of CP2K")
        symbols = [row.split()[0] for row in rows]
        yield _Frame(int(found[1]), float(found[2]), symbols, table(rows, 3))


def _of_step(rows: Mapping[int, list[Array]], step: int, seen: Counter[int]) -> Array | None:
    """Row of a step; if a restarted run repeated the step, the one of the same repetition."""
    found = rows.get(step)
    return found[min(seen[step], len(found) - 1)] if found else None


def _columns(path: Path, unit: str, columns: slice) -> dict[int, list[Array]]:
    """Numbers of each step in a file with one line for each; empty if there is no such file.

    Raises:
        ValueError: the title does not have the unit.
    """
    if not path.is_file():
        return {}
    lines = whole_lines(str(path))
    title = next(lines, "")
    if unit not in title:
        raise ValueError(f"the first line of {path.name} should name the unit {unit}")
    rows: dict[int, list[Array]] = {}
    for words in (line.split() for line in lines if not line.startswith("#")):
        numbers = np.array([float(word) for word in words[columns]])
        rows.setdefault(int(words[0]), []).append(numbers)
    return rows


OUTPUT = Format(
    "cp2k-out", read_output, steps=True, recognise=lambda head: b" CP2K| version string:" in head
)
TRAJECTORY = Format(
    "cp2k-xyz",
    read_trajectory,
    steps=True,
    recognise=lambda head: re.match(rb"\s*\d+\s*\n\s*i =\s*\d+,.*\bE =", head) is not None,
    file_names=r".*-pos-1\.xyz",
)
