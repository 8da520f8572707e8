"""Structures of RuNNer and n2p2, ``input.data``.

Each structure lies between ``begin`` and ``end``: ``lattice x y z`` three times or not at all,
``atom x y z element charge energy fx fy fz``, ``energy E``. The file does not contain its units.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from ase import Atoms

from tesseral.data.sources.common import CUT_OFF, Format, labelled_atoms, whole_lines
from tesseral.data.sources.given import Units, given_units

ADVICE = "RuNNer uses 'Bohr' and 'Ha'; n2p2 takes any, and many files have 'A' and 'eV'"


def read_runner(path: str, left_out: Counter[str], **units: str | None) -> Iterator[Atoms]:
    """Structures of a file.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.
        units: ``length_unit``, ``energy_unit`` and ``forces_unit``.

    Raises:
        ValueError: the units are missing, or a structure cannot be read.
    """
    given = given_units(units, {}, ADVICE)
    rows: list[list[str]] = []
    inside = False
    for line in whole_lines(path, last=True):
        words = line.split()
        if words[:1] == ["begin"]:
            rows, inside = [], True
        elif words[:1] == ["end"] and inside:
            inside = False
            yield _atoms(rows, given)
        elif inside and words:
            rows.append(words)
    left_out[CUT_OFF] += inside


def _atoms(rows: list[list[str]], units: Units) -> Atoms:
    """Atoms of the lines of a structure."""
    table = [words[1:] for words in rows if words[0] == "atom"]
    cell = [[float(x) for x in words[1:4]] for words in rows if words[0] == "lattice"]
    energies = [float(words[1]) for words in rows if words[0] == "energy"]
    if len(cell) not in (0, 3) or len(energies) != 1 or any(len(words) < 9 for words in table):
        raise ValueError(
            "a structure needs one line `energy`, three lines `lattice` or none, and lines `atom` "
            "with nine entries: x y z element charge energy fx fy fz"
        )
    return labelled_atoms(
        [words[3] for words in table],
        units.length * np.array([[float(x) for x in words[:3]] for words in table]),
        units.length * np.array(cell) if cell else np.zeros((3, 3)),
        pbc=bool(cell),
        energy=units.energy * energies[0],
        forces=units.forces * np.array([[float(x) for x in words[6:9]] for words in table]),
    )


FORMAT = Format(
    "runner",
    read_runner,
    recognise=lambda head: (
        re.match(rb"(\s*#.*\n)*\s*begin\s*\n(\s*(comment|lattice|atom)\b)", head) is not None
    ),
    takes=("length_unit", "energy_unit", "forces_unit"),
)
