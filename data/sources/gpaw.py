"""Structures of a GPAW text output, in its old and new form, read line by line.

``energy`` is the energy extrapolated to zero smearing, ``free_energy`` the one whose derivatives
are the forces. Forces and stress are printed without constraints. ASE reads only the old form, and
no free energy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import ase.io
import ase.io.ulm
from ase import Atoms

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
from tesseral.data.sources.settings import add_settings, settings_of_calculator, settings_text
from tesseral.data.units import stress_tensor

CORRECTED = "steps left out (van der Waals corrections in GPAW's text; import the .traj or .gpw)"
VERSION = re.compile(r"^ \|__.*?(\d+\.\d+\.\d+\S*)\s*$")
ENERGY = re.compile(r"^\s*(Free energy|Extrapolated|Zero Kelvin):\s*([-+]?\d+\.\d+)", re.IGNORECASE)
ATOM = re.compile(r"^\|?\s*\d+\s*\|?\s*([A-Z][a-z]?)\b")
END = ("timing:", "Timing:", "Memory usage:")
SETTINGS = {
    "functional": re.compile(r"Using the (\S+) Exchange-Corr|^  name: (\S+) with .* stencil"),
    "cutoff": re.compile(r"^\s*Cutoff(?: energy)?: ([\d.]+) eV"),
    "spin": re.compile(r"^Spin-(components: [124]|paired|polarized)"),
    "smearing": re.compile(r"^  (?:  )?width: ([\d.]+)  # eV"),
    "k-points": re.compile(r"Monkhorst-Pack size: \[(.*)\]|k-points?: (\d+ x \d+ x \d+)"),
}
SPIN = {"components: 2": "collinear", "polarized": "collinear", "components: 4": "non-collinear"}


@dataclass
class _Frame:
    """Structure and its results, in eV and Å."""

    symbols: list[str] = field(default_factory=list)
    positions: Array | None = None
    forces: Array | None = None
    stress: Array | None = None
    energies: dict[str, float] = field(default_factory=dict)
    readable: bool = True
    corrected: bool = False


@dataclass
class _Text:
    """Settings of all structures of the text."""

    cell: Array | None = None
    pbc: list[bool] = field(default_factory=list)
    version: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    ended: bool = False

    def description(self) -> str:
        """Settings as text."""
        return settings_text({"code": f"GPAW {self.version}", **self.settings})


def read_gpaw_text(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Structures of a GPAW text output that have an energy.

    GPAW prints the energy of self-consistent structures only.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.
    """
    lines = whole_lines(path)
    text, frame, with_stress = _Text(), _Frame(), False
    try:
        for line in lines:
            if line.startswith(("Positions:", "Atoms  #")):
                yield from _finish(text, frame, left_out)
                with_stress = with_stress or frame.stress is not None
                frame = _Frame()
                if line.startswith("Atoms"):
                    take(lines, 2)
                _read_atoms(lines, frame)
            elif line.startswith("Unit cell"):
                _read_cell(line, lines, text)
            elif line.startswith(END):
                text.ended = True
            elif not _read_results(line, lines, frame):
                _read_settings(line, text)
    except EOFError:
        frame = _Frame()
    # If the file is truncated within its results, the last structure would lack labels.
    if text.ended or (frame.forces is not None and not (with_stress and frame.stress is None)):
        yield from _finish(text, frame, left_out)
    left_out[CUT_OFF] += not text.ended


def read_gpw(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Structure of a GPAW restart file."""
    (atoms,) = ase.io.iread(path, format="gpw")
    with ase.io.ulm.open(path) as file:
        version = str(file.asdict().get("gpaw_version", ""))
        parameters = file.parameters.asdict()
    add_settings(atoms, settings_of_calculator(f"gpaw {version}", parameters))
    yield atoms


def _finish(text: _Text, frame: _Frame, left_out: Counter[str]) -> Iterator[Atoms]:
    """Yield the structure, if its results are reliable."""
    if frame.positions is None or text.cell is None:
        return
    if frame.corrected:
        left_out[CORRECTED] += 1
    elif not frame.readable:
        left_out[UNREADABLE] += 1
    elif "energy" not in frame.energies:
        left_out[UNCONVERGED] += 1
    else:
        yield labelled_atoms(
            frame.symbols,
            frame.positions,
            text.cell,
            pbc=text.pbc,
            settings=text.description(),
            stress=frame.stress,
            forces=frame.forces,
            **frame.energies,
        )


def _read_atoms(lines: Iterator[str], frame: _Frame) -> None:
    """Read the rows of a table of atoms, up to the first other line.

    Raises:
        EOFError: the file ends within the table.
    """
    rows: list[str] = []
    for line in lines:
        if not (found := ATOM.match(line)):
            frame.positions = table(rows, 3)
            return
        frame.symbols.append(found[1])
        rows.append(line)
    raise EOFError("the file ends within the table of atoms")


def _read_cell(line: str, lines: Iterator[str], text: _Text) -> None:
    """Read the cell and the periodic directions."""
    take(lines, 2 if "#" in line else 1)
    rows = take(lines, 3)
    # "1. axis:" in the old form would look like a decimal number.
    text.cell = table([row.partition("axis:")[2] or row for row in rows], 3)
    text.pbc = [" yes " in row for row in rows]


def _read_results(line: str, lines: Iterator[str], frame: _Frame) -> bool:
    """Read the results that begin at a line, and return whether there were any.

    Raises:
        EOFError: the file ends within them.
    """
    try:
        if found := ENERGY.match(line):
            name = "free_energy" if found[1].lower() == "free energy" else "energy"
            frame.energies[name] = float(found[2])
        elif line.startswith(("Forces  #", "Forces in eV/Ang:")):
            take(lines, 2 if "#" in line else 0)
            frame.forces = table(take(lines, len(frame.symbols)), 3)
        elif line.startswith(("Stress tensor  #", "Stress tensor:")):
            take(lines, 2 if "#" in line else 0)
            frame.stress = stress_tensor(table(take(lines, 3), 3))
        elif line.lower().startswith("vdw correction"):
            frame.corrected = True
        else:
            return False
    except ValueError:
        frame.readable = False
    return True


def _read_settings(line: str, text: _Text) -> None:
    """Read settings from a line."""
    if not text.version and (found := VERSION.match(line)):
        text.version = found[1]
    for name, pattern in SETTINGS.items():
        if name not in text.settings and (found := pattern.search(line)):
            value = next(group for group in found.groups() if group)
            if name == "spin":
                value = SPIN.get(value, "none")
            elif name in ("cutoff", "smearing"):
                value = f"{float(value):g} eV"
            elif name == "k-points":
                value = value.replace(", ", " x ")
            text.settings[name] = value


BANNERS = (b"  ___ ___ ___ _ _ _", b"\n |__ |  | ||/\\| -", b"\n |__||  | ||/\\| -")
TEXT = Format(
    "gpaw-out",
    read_gpaw_text,
    steps=True,
    recognise=lambda head: any(banner in head for banner in BANNERS),
)
GPW = Format("gpw", read_gpw, steps=True)
