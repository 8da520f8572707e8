"""Configurations of MLIP (moment tensor potentials), ``.cfg``.

Energies are in eV, lengths in Å, forces in eV/Å. ``PlusStress`` is the virial, -V · stress, in eV;
its title names the order of the components. Atoms have types from 0 instead of elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tesseral.data.sources.common import (
    CUT_OFF,
    UNCONVERGED,
    Array,
    Format,
    labelled_atoms,
    take,
    whole_lines,
)
from tesseral.data.sources.given import numbers_of_types

AXES = {"x": 0, "y": 1, "z": 2}


@dataclass
class _Configuration:
    """What was read of a configuration."""

    size: int = 0
    cell: list[list[float]] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=dict)
    energy: float | None = None
    virial: Array | None = None
    converged: bool = True


def read_mlip(path: str, left_out: Counter[str], elements: Sequence[str] = ()) -> Iterator[Atoms]:
    """Configurations of a file.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.
        elements: elements of the types 0, 1, ….

    Raises:
        ValueError: the elements are missing, or a configuration cannot be read.
    """
    lines = (line for line in whole_lines(path, last=True) if line.strip())
    for line in lines:
        if line.strip() != "BEGIN_CFG":
            continue
        try:
            found = _read(lines)
        except EOFError:
            left_out[CUT_OFF] += 1
            return
        if found.converged:
            yield _atoms(found, elements)
        else:
            left_out[UNCONVERGED] += 1


def _read(lines: Iterator[str]) -> _Configuration:
    """Read a configuration up to its end.

    Raises:
        EOFError: the file ends before.
        ValueError: an entry cannot be read.
    """
    found = _Configuration()
    for line in lines:
        name, *titles = line.split()
        if name == "END_CFG":
            return found
        if name == "Size":
            found.size = int(take(lines, 1)[0])
        elif name.lower() == "supercell":
            while len(found.cell) < 3:  # up to three vectors
                row = take(lines, 1)[0]
                if len(row.split()) != 3:
                    raise ValueError("a structure with fewer than three cell vectors is not read")
                found.cell.append([float(word) for word in row.split()])
        elif name == "AtomData:":
            rows = [[float(word) for word in row.split()] for row in take(lines, found.size)]
            if any(len(row) != len(titles) for row in rows):
                raise ValueError(f"the table of atoms needs the columns {' '.join(titles)}")
            found.columns = dict(zip(titles, map(list, zip(*rows, strict=True)), strict=True))
        elif name == "Energy":
            found.energy = float(take(lines, 1)[0])
        elif name == "PlusStress:":
            found.virial = _virial(titles, take(lines, 1)[0])
        elif name in ("Stress:", "Virial:"):
            raise ValueError(
                f"it has {name} of an old version, whose sign is not certain; convert the file "
                "with MLIP to one with PlusStress"
            )
        elif name == "Feature" and "not_converged" in line:
            found.converged = False
    raise EOFError("the file ends within a configuration")


def _virial(titles: Sequence[str], row: str) -> Array:
    """Virial from components in the order of the titles, such as ``xx yy zz yz xz xy``."""
    virial = np.zeros((3, 3))
    for title, word in zip(titles, row.split(), strict=True):
        i, j = AXES[title[0]], AXES[title[1]]
        virial[i, j] = virial[j, i] = float(word)
    return virial


def _atoms(found: _Configuration, elements: Sequence[str]) -> Atoms:
    """Atoms of a configuration."""
    columns = {name: np.array(values) for name, values in found.columns.items()}
    types = columns.get("type", np.zeros(found.size))
    cell = np.array(found.cell).reshape(-1, 3)
    periodic = len(cell) == 3

    def vectors(first: str, second: str, third: str) -> Array | None:
        names = (first, second, third)
        if not all(name in columns for name in names):
            return None
        return np.stack([columns[name] for name in names], axis=1)

    positions = vectors("cartes_x", "cartes_y", "cartes_z")
    direct = vectors("direct_x", "direct_y", "direct_z")
    if positions is None and direct is not None and periodic:
        positions = direct @ cell
    if positions is None:
        raise ValueError(f"the table of atoms has no positions, only {', '.join(columns)}")
    stress = None
    if periodic and found.virial is not None:
        stress = -found.virial / abs(np.linalg.det(cell))
    return labelled_atoms(
        [chemical_symbols[z] for z in numbers_of_types(types, elements)],
        positions,
        cell if periodic else np.zeros((3, 3)),
        pbc=periodic,
        stress=stress,
        energy=found.energy,
        forces=vectors("fx", "fy", "fz"),
    )


FORMAT = Format(
    "mlip-cfg",
    read_mlip,
    recognise=lambda head: head.lstrip().startswith(b"BEGIN_CFG"),
    takes=("elements",),
)
