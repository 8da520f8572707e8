"""Ionic steps of a VASP OUTCAR, read line by line.

``energy`` is VASP's energy(sigma->0), ``free_energy`` its free energy TOTEN, whose derivatives are
the forces. Positions have five decimals; vasprun.xml has eight.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from ase import Atoms

from tesseral.data.sources.common import (
    CUT_OFF,
    LEARNED,
    UNREADABLE,
    Array,
    Format,
    labelled_atoms,
    table,
    take,
    whole_lines,
)
from tesseral.data.sources.vasp_settings import (
    NOTHING,
    SETTINGS_TAGS,
    STEP_TAGS,
    element_of,
    refusal,
    vasp_settings,
    vasp_stress,
)

TAG = re.compile(rf"\b({'|'.join([*SETTINGS_TAGS, *STEP_TAGS])})\s*=\s*([^\s;,]+)")
COMMENT = re.compile("[#!]")
GRID = re.compile(r"generate k-points for:\s+(\d+)\s+(\d+)\s+(\d+)")
IRREDUCIBLE = re.compile(r"NKPTS =\s*(\d+)")
BEGIN = ("Iteration", "FORCE on cell")  # first step; the latter with a learned force field
END = "General timing and accounting"


@dataclass
class _Header:
    """Header before the first step."""

    version: str = ""
    titles: list[str] = field(default_factory=list)  # titles of the POTCARs, TITEL = …
    potcars: list[str] = field(default_factory=list)  # POTCAR: …, which VASP prints twice
    counts: list[int] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    k_points: str = ""

    def kinds(self) -> list[str]:
        """Title of the POTCAR of each kind of ions.

        Raises:
            ValueError: the titles do not match the kinds of ions.
        """
        found = self.titles or self.potcars[: len(self.potcars) // 2]
        if not self.counts or len(self.counts) != len(found):
            raise ValueError(
                f"it names {len(found)} POTCARs (TITEL) and {len(self.counts)} kinds of ions (ions "
                "per type), which should be equal numbers and at least one; is the OUTCAR "
                "complete? The vasprun.xml of the same calculation may help"
            )
        return found


@dataclass
class _Step:
    """Values of an ionic step, in VASP's units."""

    number: str = ""  # of the ionic step
    iterations: int = 0
    converged: bool | None = None  # None: not reported by VASP
    readable: bool = True
    cell: Array | None = None
    positions: Array | None = None
    forces: Array | None = None
    stress: Array | None = None
    free_energy: float | None = None
    energy: float | None = None

    def begun(self) -> bool:
        """Return whether there is any result."""
        found = (self.cell, self.positions, self.stress, self.free_energy)
        return not self.readable or any(value is not None for value in found)


def read_outcar(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Ionic steps of an OUTCAR whose electronic steps converged.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.

    Raises:
        ValueError: the file does not list its atoms, or contains several runs.
    """
    lines = whole_lines(path)
    header, first = _read_header(lines)
    lines = chain(first, lines)
    kinds = header.kinds()
    potentials = {element_of(title): title for title in kinds}
    pairs = zip(kinds, header.counts, strict=True)
    symbols = [element_of(title) for title, count in pairs for _ in range(count)]
    settings = vasp_settings(header.version, header.tags, potentials, header.k_points)
    step, learned, ended = _Step(), False, False
    try:
        for line in lines:
            if line.lstrip()[:1].isdigit():  # most lines: bands, which are not needed
                continue
            if "free  energy ML TOTEN" in line:  # a DFT step may follow, which counts separately
                left_out[LEARNED] += learned
                step, learned = _Step(), True
            elif line.startswith(" vasp."):
                raise ValueError("it contains several runs one after the other; separate them")
            elif "- Iteration" in line:
                number = line.partition("Iteration")[2].partition("(")[0]
                if step.begun() and number != step.number:  # the last one has no energy
                    left_out[UNREADABLE] += 1
                    step = _Step()
                step.number = number
                step.iterations += 1
            elif not _read_line(line, lines, step, len(symbols)):
                ended = ended or END in line
            elif step.energy is not None:
                yield from _atoms(step, symbols, settings, header.tags, left_out)
                step, learned = _Step(), False
    except EOFError:
        ended = False
    left_out[UNREADABLE] += ended and step.begun()
    left_out[LEARNED] += learned
    left_out[CUT_OFF] += not ended


def _read_header(lines: Iterator[str]) -> tuple[_Header, list[str]]:
    """Read up to the first step; the line that begins it is the second result."""
    header = _Header()
    for line in lines:
        if any(mark in line for mark in BEGIN):
            return header, [line]
        if not header.version and line.startswith(" vasp."):
            header.version = line.split()[0].removeprefix("vasp.")
        elif "TITEL" in line:
            header.titles.append(line.partition("=")[2].strip())
        elif line.startswith(" POTCAR:"):
            header.potcars.append(line.partition(":")[2].strip())
        elif "ions per type" in line:
            header.counts = [int(word) for word in line.partition("=")[2].split()]
        elif found := GRID.search(line):
            header.k_points = " x ".join(found.groups())
        elif found := IRREDUCIBLE.search(line):
            header.k_points = header.k_points or f"{found[1]} irreducible"
        elif "LDAUU =" in line:
            header.tags["LDAUU"] = line.partition("LDAUU =")[2].strip()
            header.tags["LDAU"] = "T"
        else:
            for tag, value in TAG.findall(COMMENT.split(line)[0]):
                # "METAGGA= F" is printed below the functional requested in the INCAR, and VASP 5
                # may print a second NELM for response functions, without NELMIN.
                if tag == "METAGGA" and value in NOTHING:
                    continue
                if tag != "NELM" or tag not in header.tags or "NELMIN" in line:
                    header.tags[tag] = value
    return header, []


def _read_line(line: str, lines: Iterator[str], step: _Step, n_atoms: int) -> bool:
    """Read the results that begin at a line, and return whether there were any.

    Raises:
        EOFError: the file ends within them.
    """
    try:
        if line.startswith("  in kB"):
            step.stress = table([line], 6)[0]
        elif "direct lattice vectors" in line:
            step.cell = table(take(lines, 3), 3)
        elif "TOTAL-FORCE (eV/Angst)" in line:
            *rows, rule = take(lines, n_atoms + 1, skip=1)
            if "---" not in rule:
                raise ValueError("the atoms differ from those at the beginning")
            numbers = table(rows, 6)
            step.positions, step.forces = numbers[:, :3], numbers[:, 3:]
        elif "aborting loop" in line:
            step.converged = "EDIFF is reached" in line
        elif "free  energy   TOTEN" in line:  # with two spaces; electronic steps have one
            step.free_energy = float(table([line], 1)[0, 0])
        elif step.free_energy is not None and "energy(sigma->0)" in line:
            step.energy = float(table([line], 2)[0, 1])
        else:
            return False
    except ValueError:
        step.readable = False
        if "energy" in line:  # last number of a step
            step.free_energy = step.energy = float("nan")
    return True


def _atoms(
    step: _Step,
    symbols: list[str],
    settings: str,
    tags: dict[str, str],
    left_out: Counter[str],
) -> Iterator[Atoms]:
    """Yield the atoms of the step in ASE's units and signs, if its numbers are reliable."""
    if reason := refusal(tags, step.iterations, step.converged):
        left_out[reason] += 1
        return
    if not step.readable or step.cell is None or step.positions is None:
        left_out[UNREADABLE] += 1
        return
    yield labelled_atoms(
        symbols,
        step.positions,
        step.cell,
        settings=settings,
        stress=vasp_stress(step.stress, tags, left_out),
        energy=step.energy,
        free_energy=step.free_energy,
        forces=step.forces,
    )


FORMAT = Format(
    "vasp-out",
    read_outcar,
    steps=True,
    recognise=lambda head: (
        head.lstrip().startswith(b"vasp.") and (b"INCAR:" in head or b"POTCAR:" in head)
    ),
    file_names=r".*OUTCAR.*",
)
