"""Consistency of the steps of one calculation, as a reader of ASE returns them.

Readers of outputs have given energies to structures of other steps and lost cells. What ASE reads
of a calculation passes through here: all steps have a cell or none has one, a structure does not
occur with two energies, energies change as forces say, and steps are counted.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.io.formats import open_with_compression
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Files of arbitrary structures, and of structures without energies.
CONTAINERS = {
    "aselmdb",
    "bundletrajectory",
    "cif",
    "cp2k-dcd",
    "db",
    "extxyz",
    "json",
    "lammps-dump-binary",
    "lammps-dump-text",
    "mysql",
    "netcdftrajectory",
    "postgresql",
    "proteindatabank",
    "runnerdata",
    "traj",
    "xyz",
}
MARKS = {  # one for each energy that belongs to a structure
    "castep-castep": re.compile(rb"^ \*+ .*Forces \*+", re.MULTILINE),
    "castep-geom": re.compile(rb"<-- E\s*$", re.MULTILINE),
    "castep-md": re.compile(rb"<-- E\s*$", re.MULTILINE),
    "gaussian-out": re.compile(rb"^ *SCF Done:", re.MULTILINE),
    "nwchem-out": re.compile(rb"^ *Total (?:DFT|SCF) energy", re.MULTILINE),
    "orca-output": re.compile(rb"^ *FINAL SINGLE POINT ENERGY", re.MULTILINE),
}
UNREAD = "energies in the file for which ASE's reader returned no structure"
ADVICE = (
    "convert the file to extended XYZ with a reader that you have checked, and use that file "
    "instead"
)
SAME_ENERGY = 1e-4  # eV/atom, between two results of one structure
LONGEST_STEP = 0.15  # Å; beyond it the mid-point rule says little
NOISE = 2e-3  # eV/atom
MANY = 3  # steps, from which on the comparison of energies with forces decides


class SuspectSteps(ValueError):
    """The steps of a calculation contradict each other."""


class Step(NamedTuple):
    """Step with its labels."""

    number: int
    atoms: Atoms
    energy: float
    forces: Array


def check_steps(
    frames: Iterator[Atoms],
    reader: str,
    path: str | os.PathLike[str] | None = None,
    form: str = "",
    left_out: Counter[str] | None = None,
) -> Iterator[Atoms]:
    """The same steps, checked on their way.

    Args:
        frames: steps of one calculation.
        reader: the reader, for messages.
        path: file in which energies are counted. Default: they are not counted.
        form: format of the file.
        left_out: counter of energies without a structure.

    Raises:
        SuspectSteps: steps contradict each other.
    """
    check = _Check(reader)
    for atoms in frames:
        check.add(atoms)
        yield atoms
    check.finish()
    if path is not None and left_out is not None and form in MARKS:
        with open_with_compression(os.fspath(path), "rb") as file:
            energies = sum(len(MARKS[form].findall(line)) for line in file)
        left_out[UNREAD] += max(0, energies - check.number - 1)


class _Check:
    """Steps so far."""

    def __init__(self, reader: str) -> None:
        self.reader = reader
        self.number = -1
        self.last: Atoms | None = None
        self.step: Step | None = None
        self.energies: dict[bytes, tuple[int, float]] = {}  # of each structure
        self.compared: list[tuple[float, float, bool]] = []  # ΔE, -F·Δx, whether they agree

    def add(self, atoms: Atoms) -> None:
        """Compare a step with those before it."""
        self.number += 1
        last, self.last = self.last, atoms
        if last is not None and np.array_equal(last.numbers, atoms.numbers):
            self._compare_cells(last, atoms)
        energy = _result(atoms, "energy")
        if energy is None:
            self.step = None
            return
        self._compare_repeated(atoms, float(energy))
        forces = _result(atoms, "forces")
        before, self.step = self.step, None
        if forces is not None and np.shape(forces) == (len(atoms), 3):
            if (free := _result(atoms, "free_energy")) is not None:
                energy = free  # forces are its derivatives
            self.step = Step(self.number, atoms, float(energy), np.asarray(forces, dtype=float))
            if before is not None:
                self._compare_energies(before, self.step)

    def finish(self) -> None:
        """Judge energies and forces of all steps.

        Raises:
            SuspectSteps: most changes of the energy disagree with the forces.
        """
        wrong = [pair for pair in self.compared if not pair[2]]
        if len(self.compared) >= MANY and 2 * len(wrong) > len(self.compared):
            change, expected, _ = max(wrong, key=lambda pair: abs(pair[0] - pair[1]))
            raise SuspectSteps(
                f"{self.reader} returned energies that do not change as the forces say, in "
                f"{len(wrong)} of {len(self.compared)} steps (at most by {change:.3f} instead of "
                f"{expected:.3f} eV): they may belong to other structures; {ADVICE}"
            )

    def _compare_cells(self, last: Atoms, atoms: Atoms) -> None:
        """Reject a cell that comes or goes."""
        kinds = [(tuple(each.pbc), bool(each.cell.array.any())) for each in (last, atoms)]
        if kinds[0] != kinds[1]:
            texts = [
                f"pbc {' '.join('FT'[int(each)] for each in pbc)} and {'a' if cell else 'no'} cell"
                for pbc, cell in kinds
            ]
            raise SuspectSteps(
                f"{self.reader} returned step {self.number - 1} with {texts[0]}, and step "
                f"{self.number} with {texts[1]}; {ADVICE}"
            )

    def _compare_repeated(self, atoms: Atoms, energy: float) -> None:
        """Reject a structure that occurred before with another energy."""
        parts = (atoms.numbers, atoms.positions, atoms.cell.array)
        text = b"".join(part.tobytes() for part in parts)
        key = hashlib.blake2b(text, digest_size=16).digest()
        number, known = self.energies.setdefault(key, (self.number, energy))
        if abs(energy - known) > SAME_ENERGY * len(atoms):
            raise SuspectSteps(
                f"{self.reader} returned the same positions for the steps {number} and "
                f"{self.number}, but the energies {known:.6f} and {energy:.6f} eV; {ADVICE}"
            )

    def _compare_energies(self, before: Step, after: Step) -> None:
        """Compare the change of the energy with the work of the forces."""
        first, second = before.atoms, after.atoms
        if not np.array_equal(first.numbers, second.numbers) or not np.allclose(
            first.cell.array, second.cell.array, atol=1e-6
        ):
            return
        moves = second.positions - first.positions
        if second.pbc.any():
            moves = find_mic(moves, second.cell, second.pbc)[0]
        if not 0 < np.abs(moves).max() < LONGEST_STEP:
            return
        work = -0.5 * ((before.forces + after.forces) * moves).sum(axis=1)
        bend = np.abs(((after.forces - before.forces) * moves).sum(axis=1)).sum()
        limit = 0.5 * bend + 0.5 * np.abs(work).sum() + NOISE * len(first)
        change = after.energy - before.energy
        expected = float(work.sum())
        self.compared.append((change, expected, bool(abs(change - expected) <= limit)))


def _result(atoms: Atoms, name: str) -> Any:
    """Result stored with the atoms."""
    return None if atoms.calc is None else atoms.calc.results.get(name)
