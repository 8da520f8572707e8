"""Steps of Quantum ESPRESSO's pw.x from its text output, read line by line.

``energy`` is the total energy, with smearing the free energy F = E - TS, whose derivatives are the
forces; with exact exchange it is that of the last cycle. The text output contains the unconstrained
forces of fixed atoms (in the XML they are zeroed, so the XML is not read).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ase import Atoms

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
from tesseral.data.units import BOHR_IN_A, ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS, stress_tensor

POTENTIAL = re.compile(r"PseudoPot\. #\s*\d+ for\s+(\S+)\s+read from file")
K_POINTS = re.compile(r"number of k points=\s*(\d+)\s*(.*?)(?:, width \(Ry\)=\s*(\S+))?\s*$")
UNIT = re.compile(r"\(?\b(alat|angstrom|bohr|crystal)\b(?:\s*=\s*([\d.]+))?")
SHORT_NAMES = {"SLA PW PBE PBE": "PBE", "SLA PW PBX PBC": "PBE", "SLA PW PSX PSC": "PBEsol"}
ADDITIONS = {
    "EXX-fraction": "with exact exchange",
    "DFT-D3 Dispersion": "+ D3",
    "(Grimme-D2)": "+ D2",
    "LDA+U calculation": "+ U",
    "DFT+U calculation": "+ U",
    "DFT+Hubbard": "+ U",
}
BANDS = set("0123456789-")  # first characters of most lines, which are not needed
LOOSE = 1.001  # the accuracy is printed with two digits


@dataclass
class _Run:
    """Values that pw.x prints once at its start, and the current structure."""

    version: str = ""
    threshold: float = float("inf")  # Ry
    alat: float = 0.0  # Å
    n_atoms: int = 0
    symbols: list[str] = field(default_factory=list)
    cell: Array | None = None  # Å
    positions: Array | None = None  # Å
    settings: dict[str, str] = field(default_factory=dict)
    additions: list[str] = field(default_factory=list)
    potentials: dict[str, str] = field(default_factory=dict)

    def description(self) -> str:
        """Settings as text."""
        name = " ".join([self.settings.get("functional", ""), *self.additions])
        parts = {"spin": "none", **self.settings, "functional": name}
        return settings_text({"code": f"pw.x {self.version}", **parts}, self.potentials)


@dataclass
class _Results:
    """Labels of the current structure, in pw.x's units."""

    energy: float | None = None
    accuracy: float | None = None
    failed: bool = False
    readable: bool = True
    forces: Array | None = None
    stress: Array | None = None


def read_espresso(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Self-consistent structures of a pw.x output with their labels.

    Self-consistency is tested with the accuracy printed next to the energy, since pw.x always
    reports convergence with ``scf_must_converge = .false.``.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.
    """
    lines = whole_lines(path)
    run, results, ended, with_stress = _Run(), _Results(), False, False
    try:
        for line in lines:
            if line.lstrip()[:1] in BANDS:
                continue
            starts = "Program PWSCF" in line
            if not starts and not run.version:
                continue  # a batch system may have shown the input
            if starts or line.startswith(("CELL_PARAMETERS", "ATOMIC_POSITIONS")):
                yield from _finish(run, results, left_out)
                with_stress = with_stress or results.stress is not None
                results = _Results()
            if starts:
                left_out[CUT_OFF] += bool(run.version) and not ended
                words = line.split()
                run, ended = _Run(version=words[2].removeprefix("v.")), False
            elif "JOB DONE" in line:
                ended = True
            elif not _read_results(line, lines, results, run.n_atoms):
                _read_settings(line, lines, run)
    except EOFError:
        results, ended = _Results(), False
    # If the file is truncated within its results, the last structure would lack labels.
    if ended or (results.forces is not None and not (with_stress and results.stress is None)):
        yield from _finish(run, results, left_out)
    left_out[CUT_OFF] += not ended


def _finish(run: _Run, results: _Results, left_out: Counter[str]) -> Iterator[Atoms]:
    """Yield the current structure, if its results are reliable."""
    accuracy = results.accuracy or 0.0
    if results.failed or accuracy > LOOSE * run.threshold:
        left_out[UNCONVERGED] += 1
    elif not results.readable:
        left_out[UNREADABLE] += 1
    elif results.energy is not None and run.positions is not None and run.cell is not None:
        ry, stress = ENERGY_UNITS["Ry"], results.stress
        energy = ry * results.energy
        forces = results.forces
        yield labelled_atoms(
            run.symbols,
            run.positions,
            run.cell,
            settings=run.description(),
            stress=None if stress is None else -STRESS_UNITS["Ry/Bohr^3"] * stress,
            energy=energy,
            free_energy=energy,
            forces=None if forces is None else FORCE_UNITS["Ry/Bohr"] * forces,
        )


def _read_results(line: str, lines: Iterator[str], results: _Results, n_atoms: int) -> bool:
    """Read the results that begin at a line, and return whether there were any.

    Raises:
        EOFError: the file ends within them.
    """
    try:
        if line.startswith("!"):  # for each cycle of exact exchange, and "!!" for the last
            results.energy = float(table([line], 1)[0, 0])
        elif results.energy is not None and "estimated scf accuracy" in line:
            results.accuracy = float(line.split("<")[1].split()[0])
        elif "convergence NOT achieved" in line:
            results.failed = True
        elif "Forces acting on atoms" in line:
            first = next((text for text in lines if "force =" in text), "")
            results.forces = table([first, *take(lines, n_atoms - 1)], 3)
        elif "total   stress" in line:
            results.stress = stress_tensor(table(take(lines, 3), 3))
        else:
            return False
    except ValueError:
        results.readable = False
    return True


def _read_settings(line: str, lines: Iterator[str], run: _Run) -> None:
    """Read settings of the run or its structure from a line.

    A variable-cell relaxation repeats its header before the last calculation, with fewer digits
    than the structure before it; only the first header is used.

    Raises:
        EOFError: the file ends within a table.
    """
    if line.startswith("CELL_PARAMETERS"):
        run.cell = _scale(line, run) * table(take(lines, 3), 3)
    elif line.startswith("ATOMIC_POSITIONS"):
        _read_positions(line, lines, run)
    elif "celldm(1)=" in line:
        run.alat = BOHR_IN_A * float(table([line], 1)[0, 0])
    elif "number of atoms/cell" in line:
        run.n_atoms = int(line.split()[-1])
    elif "crystal axes:" in line and run.cell is None:
        run.cell = run.alat * table(take(lines, 3), 3)
    elif "positions (alat units)" in line and run.positions is None:
        rows = take(lines, run.n_atoms)
        run.symbols = [chemical_symbol(row.split()[1]) for row in rows]
        run.positions = run.alat * table(rows, 3)
    elif "scf convergence threshold" in line:
        run.threshold = float(line.split()[-1])
    elif "kinetic-energy cutoff" in line:
        cutoff = float(line.split()[-2]) * ENERGY_UNITS["Ry"]
        run.settings["cutoff"] = f"{cutoff:.4g} eV"
    elif "Exchange-correlation" in line:
        name = " ".join(line.partition("=")[2].partition("(")[0].split())
        run.settings["functional"] = SHORT_NAMES.get(name, name)
    elif "Starting magnetic structure" in line:
        run.settings["spin"] = "collinear"
    elif "Noncollinear calculation" in line:
        run.settings["spin"] = "non-collinear"
    elif found := POTENTIAL.search(line):
        name = line.partition("read from file")[2].strip(" :\n") or take(lines, 1)[0]
        run.potentials[found[1]] = name.strip().rsplit("/", 1)[-1]
    elif found := K_POINTS.search(line):
        run.settings["k-points"] = f"{found[1]} irreducible"
        width = f" {float(found[3]) * ENERGY_UNITS['Ry']:.3g} eV" if found[3] else ""
        run.settings["smearing"] = found[2].removesuffix(" smearing") + width
    else:
        _read_additions(line, run)


def _read_additions(line: str, run: _Run) -> None:
    """Read a term added to the functional."""
    for mark, name in ADDITIONS.items():
        if mark in line and name not in run.additions:
            run.additions.append(name)


def _read_positions(line: str, lines: Iterator[str], run: _Run) -> None:
    """Read a new structure from the card of its positions."""
    rows = take(lines, run.n_atoms)
    positions = table(rows, 3)
    run.symbols = [chemical_symbol(row.split()[0]) for row in rows]
    fractional = "crystal" in line
    assert run.cell is not None
    run.positions = positions @ run.cell if fractional else _scale(line, run) * positions


def _scale(line: str, run: _Run) -> float:
    """Å per unit of a card: ``(angstrom)``, ``(bohr)``, ``(alat)``, ``(alat= 7.1)``."""
    found = UNIT.search(line.lower())
    unit = found[1] if found else "alat"
    if unit == "alat" and found and found[2]:
        return BOHR_IN_A * float(found[2])
    return {"angstrom": 1.0, "bohr": BOHR_IN_A, "alat": run.alat}[unit]


FORMAT = Format(
    "espresso-out", read_espresso, steps=True, recognise=lambda head: b"Program PWSCF" in head
)
