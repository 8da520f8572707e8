"""Structures of aenet: XSF with the comment ``# total energy = … eV`` and forces in eV/Å.

XCrySDen's own XSF has forces in hartree/Å and no energies; ASE reads it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tesseral.data.sources.common import Format, labelled_atoms, take, whole_lines

ENERGY = re.compile(r"\s*#\s*total energy\s*=\s*(\S+)\s*(\S*)", re.IGNORECASE)
OTHER = ("CONVVEC", "CONVCOORD", "SLAB", "POLYMER", "ANIMSTEPS")


def read_aenet(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Structure of a file.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: unused.

    Raises:
        ValueError: the energy has another unit, or the structure cannot be read.
        EOFError: the file is cut off.
    """
    lines = (line for line in whole_lines(path, last=True) if line.strip())
    energy, cell, rows = None, np.zeros((3, 3)), None
    for line in lines:
        name = line.split()[0]
        if found := ENERGY.match(line):
            if found[2] not in ("", "eV"):
                raise ValueError(f"the energy is in {found[2]}; aenet's is in eV")
            energy = float(found[1])
        elif name in OTHER:
            raise ValueError(f"the section {name} of XSF is not read for aenet's files")
        elif name == "PRIMVEC":
            cell = np.array([[float(word) for word in row.split()] for row in take(lines, 3)])
        elif name == "PRIMCOORD":
            rows = take(lines, int(take(lines, 1)[0].split()[0]))
        elif name == "ATOMS":
            rows = list(lines)
    table = [row.split() for row in rows or []]
    if not table or any(len(row) not in (4, 7) for row in table):
        raise ValueError("each atom needs an element, a position, and possibly a force")
    numbers = np.array([[float(word) for word in row[1:]] for row in table])
    yield labelled_atoms(
        [chemical_symbols[int(row[0])] if row[0].isdigit() else row[0] for row in table],
        numbers[:, :3],
        cell,
        pbc=bool(cell.any()),
        energy=energy,
        forces=numbers[:, 3:] if numbers.shape[1] == 6 else None,
    )


FORMAT = Format(
    "aenet-xsf",
    read_aenet,
    recognise=lambda head: re.match(rb"\s*#\s*total energy\s*=", head, re.IGNORECASE) is not None,
)
