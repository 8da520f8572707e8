"""Steps of FHI-aims from its text output, read line by line.

In molecular dynamics FHI-aims prints the structure of a step after its energy and forces, in a
relaxation before them. ASE's reader gives results in a molecular-dynamics output to the wrong
structure and drops the cell. Here results are given only to a structure printed for them.

``energy`` is the corrected total energy (extrapolated to zero broadening), ``free_energy`` the
electronic free energy, whose derivatives are the forces.
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
    element_of_label,
    labelled_atoms,
    table,
    take,
    whole_lines,
)
from tesseral.data.sources.settings import settings_text
from tesseral.data.units import stress_tensor

CONSTRAINED = "steps left out (forces of constrained atoms were set to zero)"
NO_STRUCTURE = "steps left out (no structure was printed for their energies)"
ENERGIES = {
    "| Total energy uncorrected": "total",
    "| Total energy corrected": "energy",
    "| Electronic free energy   ": "free_energy",
}
EV = re.compile(r"(\S+)\s+eV")
CONTROL = re.compile(r"    (xc|spin|k_grid|occupation_type)\s+(.+)")
ADDITIONS = {"    vdw_correction_hirshfeld": "+ TS", "    many_body_dispersion": "+ MBD"}


@dataclass
class _Run:
    """Values of the whole run, and the structure whose results are awaited."""

    version: str = ""
    n_atoms: int = 0
    symbols: list[str] = field(default_factory=list)
    cell: Array | None = None  # Å; None for a molecule
    positions: Array | None = None  # Å; None until a structure is printed
    control: dict[str, str] = field(default_factory=dict)
    additions: list[str] = field(default_factory=list)
    fixed: bool = False  # some atoms

    def description(self) -> str:
        """Settings as text."""
        functional = " ".join([self.control.get("xc", "").upper(), *self.additions])
        parts = {
            "code": f"FHI-aims {self.version}",
            "functional": functional.strip(),
            "spin": self.control.get("spin", "none"),
            "smearing": self.control.get("occupation_type", ""),
            "k-points": " x ".join(self.control.get("k_grid", "").split()),
        }
        return settings_text(parts)


@dataclass
class _Results:
    """Results of one self-consistent cycle."""

    energies: dict[str, float] = field(default_factory=dict)
    forces: Array | None = None
    stress: Array | None = None
    relaxed: Array | None = None  # forces after constraints were applied
    converged: bool = False
    repeated: bool = False  # with the same structure
    readable: bool = True


def read_aims(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Structures of an FHI-aims output with their labels.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.
    """
    lines = whole_lines(path)
    run, results, ended = _Run(), _Results(), False
    strained = False  # calculations on strained cells, for a numerical stress
    try:
        for line in lines:
            if "Invoking FHI-aims" in line:
                yield from _finish(run, results, left_out)
                left_out[CUT_OFF] += bool(run.version) and not ended
                run, results, ended = _Run(version="unknown"), _Results(), False
            elif not run.version:
                continue  # a batch system may have shown the input
            elif "numerical_stress.f90" in line:
                strained = True
            elif strained:
                strained = "Calculation of numerical stress completed" not in line
            elif "Begin self-consistency loop" in line:
                if results.energies:
                    yield from _finish(run, results, left_out)
                results = _Results()
            elif "Updated atomic structure" in line:
                if results.energies:
                    yield from _finish(run, results, left_out)
                results = _Results()
                _read_structure(lines, run)
            elif "used in the preceding time step" in line:
                _read_structure(lines, run)
                yield from _finish(run, results, left_out)
                results = _Results()
            elif "Have a nice day" in line:
                ended = True
            elif not _read_results(line, lines, results, run.n_atoms):
                _read_header(line, lines, run)
    except EOFError:
        results, ended = _Results(), False
    if ended or results.forces is not None or results.relaxed is not None:
        yield from _finish(run, results, left_out, ended)
    left_out[CUT_OFF] += bool(run.version) and not ended


def _finish(
    run: _Run, results: _Results, left_out: Counter[str], ended: bool = True
) -> Iterator[Atoms]:
    """Yield the structure with its results, if they are reliable; the next one is not known yet."""
    if "total" not in results.energies or results.repeated:
        return
    forces = results.relaxed if results.forces is None and not run.fixed else results.forces
    positions, run.positions = run.positions, None
    if not results.converged:
        left_out[UNCONVERGED] += 1
    elif not results.readable:
        left_out[UNREADABLE] += 1
    elif forces is None and results.relaxed is not None:
        left_out[CONSTRAINED] += 1
    elif positions is None:
        left_out[NO_STRUCTURE] += ended  # otherwise it is the incomplete step at the end
    else:
        total = results.energies["total"]
        yield labelled_atoms(
            run.symbols,
            positions,
            np.zeros((3, 3)) if run.cell is None else run.cell,
            pbc=run.cell is not None,
            settings=run.description(),
            stress=results.stress,
            energy=results.energies.get("energy", total),
            free_energy=results.energies.get("free_energy", total),
            forces=forces,
        )


def _read_results(line: str, lines: Iterator[str], results: _Results, n_atoms: int) -> bool:
    """Read the results that begin at a line, and return whether there were any.

    Raises:
        EOFError: the file ends within them.
    """
    try:
        for mark, name in ENERGIES.items():
            if mark in line:
                found = EV.search(line)
                if found is None:
                    raise ValueError(f"no energy in {line.strip()!r}")
                results.energies[name] = float(found[1])
                return True
        if "Self-consistency cycle converged" in line:
            results.converged = True
        elif "not yet converged - restarting mixer" in line:
            results.repeated = True
        elif "Total atomic forces" in line:
            rows = table(take(lines, n_atoms), 3)
            if "constraints" in line:
                results.relaxed = rows
            else:
                results.forces = rows
        elif "stress tensor - Symmetrized" in line or "Numerical stress tensor" in line:
            printed = take(lines, 8)
            axes = [row for row in printed if row.split()[1:2] in (["x"], ["y"], ["z"])]
            results.stress = stress_tensor(table([r for r in axes if "." in r], 3))
        else:
            return False
    except ValueError:
        results.readable = False
    return True


def _read_header(line: str, lines: Iterator[str], run: _Run) -> None:
    """Read a setting of the run, or its first structure.

    Raises:
        EOFError: the file ends within a table.
    """
    if line.startswith("          Version "):
        run.version = line.split()[-1]
    elif "FHI-aims version" in line:
        run.version = line.split()[-1]
    elif "Found relaxation constraint" in line:
        run.fixed = True
    elif "| Number of atoms" in line:
        run.n_atoms = int(line.split()[-1])
    elif "| Unit cell:" in line and not run.symbols:
        run.cell = table(take(lines, 3), 3)
    elif "| Atomic structure:" in line and not run.symbols:
        rows = take(lines, run.n_atoms, 1)
        run.symbols = [_symbol(row.split()[3]) for row in rows]
        run.positions = table([row.partition("Species")[2] for row in rows], 3)
    elif (found := CONTROL.match(line)) and found[1] not in run.control:
        run.control[found[1]] = found[2].strip()
    else:
        run.additions += [name for mark, name in ADDITIONS.items() if line.startswith(mark)]


def _read_structure(lines: Iterator[str], run: _Run) -> None:
    """Read a new structure.

    Raises:
        EOFError: the file ends within it.
    """
    vectors: list[str] = []
    rows: list[str] = []
    while len(rows) < run.n_atoms:
        (line,) = take(lines, 1)
        if line.lstrip().startswith("lattice_vector"):
            vectors.append(line)
        elif line.lstrip().startswith("atom"):
            rows.append(line)
        elif rows and line.startswith("---"):
            raise ValueError(f"a structure has {len(rows)} of {run.n_atoms} atoms")
    if len(vectors) == 3:
        run.cell = table(vectors, 3)
    positions = table(rows, 3)
    if rows[0].split()[0] == "atom_frac" and run.cell is not None:
        positions = positions @ run.cell
    run.symbols = [_symbol(row.split()[4]) for row in rows]
    run.positions = positions


def _symbol(species: str) -> str:
    """Chemical symbol of a species of control.in."""
    return str(chemical_symbols[element_of_label(species)[0]])


FORMAT = Format(
    "aims-output", read_aims, steps=True, recognise=lambda head: b"Invoking FHI-aims" in head
)
