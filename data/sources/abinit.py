"""Structures of ABINIT's main text output (``.abo``, ``.out``), read line by line.

One self-consistent calculation gives one structure; relaxations and MD give one for each step. The
energy is ``etotal``, which with smearing is the free energy F = E - TS, whose derivatives are the
forces. The stress is positive under tension, as in ASE.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tesseral.data.sources.common import (
    CUT_OFF,
    UNCONVERGED,
    UNREADABLE,
    Array,
    Format,
    labelled_atoms,
    table,
    take,
    whole_lines,
)
from tesseral.data.sources.settings import settings_text
from tesseral.data.units import BOHR_IN_A, ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS, stress_tensor

VERSION = re.compile(r"\.?Version\s+(\S+)\s+of ABINIT")
DATASET = re.compile(r"== DATASET\s+(\d+)")
SCF = re.compile(r"\s*ETOT\s*\d+\s+([-+]?\d+\.\d+)")
VARIABLE = re.compile(r"[-P ]?\s+([a-zA-Z_]\w*)\s+(\S.*)")
PRIMITIVE = re.compile(r" R\(([123])\)=")
ETOTAL = re.compile(r"\s*Total energy \(etotal\) \[Ha\]=\s*(\S+)")
FUNCTIONALS = {"1": "LDA", "7": "LDA", "-1012": "LDA", "11": "PBE", "-101130": "PBE"}
FUNCTIONALS |= {"-116133": "PBEsol", "14": "revPBE", "-263267": "SCAN", "-497498": "r2SCAN"}


@dataclass
class _Run:
    """Values of a file."""

    version: str = ""
    variables: dict[str, list[str]] = field(default_factory=dict)
    dataset: str = ""  # its number
    cell: Array | None = None  # bohr
    moving: bool = False  # the dataset has steps, of which the end only repeats the last
    positions: Array | None = None  # Å
    forces: Array | None = None  # hartree/bohr
    stress: Array | None = None  # hartree/bohr³
    energy: float | None = None  # hartree
    failed: bool = False
    readable: bool = True

    def variable(self, name: str) -> list[str]:
        """Words of an input variable of the dataset; empty if it is not echoed."""
        return self.variables.get(f"{name}{self.dataset}", self.variables.get(name, []))

    def symbols(self) -> list[str]:
        """Chemical symbols of the atoms.

        Raises:
            ValueError: they are alchemical mixtures.
        """
        charges = [float(word) for word in self.variable("znucl")]
        if any(charge != int(charge) for charge in charges):
            raise ValueError("it mixes pseudopotentials (znucl is not an integer)")
        return [chemical_symbols[int(charges[int(kind) - 1])] for kind in self.variable("typat")]

    def description(self) -> str:
        """Settings as text."""
        (ixc, *_), (ecut, *_) = self.variable("ixc") or [""], self.variable("ecut") or [""]
        spin = "collinear" if self.variable("nsppol")[:1] == ["2"] else "none"
        spin = "non-collinear" if self.variable("nspinor")[:1] == ["2"] else spin
        points = self.variable("nkpt")
        return settings_text(
            {
                "code": f"ABINIT {self.version}",
                "functional": FUNCTIONALS.get(ixc, f"ixc {ixc}") if ixc else "",
                "cutoff": f"{float(ecut) * ENERGY_UNITS['Ha']:.6g} eV" if ecut else "",
                "spin": spin,
                "k-points": f"{points[0]} irreducible" if points else "",
            }
        )


def read_abinit(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Self-consistent structures of an ABINIT output.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.
    """
    lines = whole_lines(path)
    run, ended = _Run(), False
    try:
        for line in lines:
            if found := VERSION.match(line):
                left_out[CUT_OFF] += bool(run.version) and not ended
                run, ended = _Run(version=found[1]), False
            elif "echo values of preprocessed input variables" in line and not run.variables:
                run.variables = _echo(lines)
            elif found := DATASET.match(line):
                run = _Run(run.version, run.variables, dataset=found[1])
            elif "Calculation completed" in line:
                ended = True
            elif found := ETOTAL.match(line):
                run.energy, run.moving = float(found[1]), True
                yield from _finish(run, left_out)
            elif "(eV/Angstrom) at end" in line and not run.moving:
                yield from _finish(run, left_out)
            else:
                _read(line, lines, run)
    except EOFError:
        ended = False
    left_out[CUT_OFF] += not ended


def _finish(run: _Run, left_out: Counter[str]) -> Iterator[Atoms]:
    """Yield the current structure, if its results are reliable."""
    if run.failed:
        left_out[UNCONVERGED] += 1
    elif not run.readable:
        left_out[UNREADABLE] += 1
    elif run.energy is not None and run.positions is not None and run.cell is not None:
        energy = ENERGY_UNITS["Ha"] * run.energy
        yield labelled_atoms(
            run.symbols(),
            run.positions,
            BOHR_IN_A * run.cell,
            settings=run.description(),
            stress=None if run.stress is None else STRESS_UNITS["Ha/Bohr^3"] * run.stress,
            energy=energy,
            free_energy=energy,
            forces=None if run.forces is None else FORCE_UNITS["Ha/Bohr"] * run.forces,
        )
    run.energy = run.forces = run.stress = None
    run.failed, run.readable = False, True


def _read(line: str, lines: Iterator[str], run: _Run) -> None:
    """Read the part of the structure or its results that begins at a line.

    Raises:
        EOFError: the file ends within it.
    """
    try:
        if found := SCF.match(line):
            run.energy = float(found[1])
        elif "was not enough SCF cycles to converge" in line:
            run.failed = True
        elif line.startswith(" Cartesian coordinates (xcart) [bohr]"):
            run.positions = BOHR_IN_A * table(take(lines, len(run.variable("typat"))), 3)
        elif "cartesian coordinates (angstrom) at end" in line:
            run.positions = table(take(lines, len(run.variable("typat"))), 3)
        elif line.startswith(" Cartesian forces (fcart) [Ha/bohr]"):
            run.forces = table(take(lines, len(run.variable("typat"))), 3)
        elif "cartesian forces (hartree/bohr) at end" in line:
            run.forces = table(take(lines, len(run.variable("typat"))), 3)
        elif line.startswith(" Real space primitive translations (rprimd) [bohr]"):
            run.cell = table(take(lines, 3), 3)
        elif line.startswith(" Cartesian components of stress tensor (hartree/bohr^3)"):
            run.stress = _read_stress(take(lines, 3))
        elif PRIMITIVE.match(line):
            rows = [line, *take(lines, 2)]
            run.cell = table([row.partition("=")[2] for row in rows], 3)
    except ValueError:
        run.readable = False


def _read_stress(rows: list[str]) -> Array:
    """Stress from the lines ``sigma(1 1)= … sigma(3 2)= …``, ``(2 2)`` and ``(3 3)``."""
    diagonal, other = table(rows, 2).T
    return stress_tensor(np.concatenate([diagonal, other]), "ase")


def _echo(lines: Iterator[str]) -> dict[str, list[str]]:
    """Input variables with their values, from the echo at the start."""
    variables: dict[str, list[str]] = {}
    words: list[str] = []
    for line in lines:
        if line.startswith("===="):
            break
        if found := VARIABLE.match(line):
            words = variables.setdefault(found[1], [])
            words += found[2].split()
        else:
            words += line.split()
    return variables


FORMAT = Format(
    "abinit-out",
    read_abinit,
    steps=True,
    recognise=lambda head: re.search(rb"^\.?Version\s+\S+\s+of ABINIT", head, re.M) is not None,
)
