"""Ionic steps of a VASP vasprun.xml, one in memory at a time.

``energy`` is VASP's energy(sigma->0) and ``free_energy`` its free energy, as in an OUTCAR. Two
peculiarities of the file are corrected as in ASE (ase.io.vasp): its free energy includes P·V of a
PSTRESS, and its e_0_energy is right in the electronic steps only, which lack dispersion.
"""

from __future__ import annotations

import lzma
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from ase import Atoms
from ase.io.formats import open_with_compression

from tesseral.data.sources.common import (
    CUT_OFF,
    LEARNED,
    NO_STRESS,
    UNCONVERGED,
    UNREADABLE,
    Array,
    Format,
    labelled_atoms,
)
from tesseral.data.sources.vasp_settings import vasp_settings
from tesseral.data.units import STRESS_UNITS, stress_tensor

LARGE = ("dos", "eigenvalues", "projected")


@dataclass
class _Header:
    """Header before the first step."""

    version: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    k_points: str = ""

    def settings(self) -> str:
        """Settings as text."""
        return vasp_settings(self.version, self.tags, self.titles, self.k_points)


def read_vasprun(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Ionic steps of a vasprun.xml whose electronic steps converged.

    A step with NELM electronic steps counts as not converged.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.

    Raises:
        ValueError: the file does not list its atoms.
    """
    header = _Header()
    with open_with_compression(path, "rb") as file:
        for element in _elements(file, left_out):
            if element.tag == "calculation":
                if not header.symbols:
                    raise ValueError("it has a calculation before its list of atoms")
                yield from _step(element, header, left_out)
            else:
                _read_header(element, header)
            element.clear()


def _elements(file: IO[bytes], left_out: Counter[str]) -> Iterator[ET.Element]:
    """Complete elements of the file that are needed, until it ends or is truncated."""
    wanted = {"generator", "incar", "parameters", "kpoints", "atominfo", "calculation"}
    depth = 0
    root = None
    try:
        for event, element in ET.iterparse(file, events=("start", "end")):
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            if event == "start":
                continue
            if depth == 1:
                if element.tag in wanted:
                    yield element
                root.clear()
            elif depth == 2 and element.tag in LARGE:
                element.clear()  # the larger part of the file
    except (ET.ParseError, EOFError, zlib.error, lzma.LZMAError):
        left_out[CUT_OFF] += 1


def _read_header(element: ET.Element, header: _Header) -> None:
    """Read the header from an element before the steps."""
    if element.tag == "generator":
        header.version = _text(element, "i[@name='version']")
    elif element.tag in ("incar", "parameters"):
        for entry in element.iter():
            if entry.tag in ("i", "v") and (entry.text or "").strip():
                header.tags[entry.attrib.get("name", "").upper()] = (entry.text or "").strip()
    elif element.tag == "kpoints":
        generation = element.find("generation")
        if generation is not None and (grid := _text(generation, "v[@name='divisions']")):
            header.k_points = " x ".join(grid.split())
        else:
            count = len(element.findall("varray[@name='kpointlist']/v"))
            header.k_points = f"{count} irreducible"
    elif element.tag == "atominfo":
        names = element.findall("array[@name='atoms']/set/rc")
        header.symbols = [(name[0].text or "").strip() for name in names]
        kinds = element.findall("array[@name='atomtypes']/set/rc")
        header.titles = [(kind[-1].text or "").strip() for kind in kinds]


def _step(element: ET.Element, header: _Header, left_out: Counter[str]) -> Iterator[Atoms]:
    """Yield the atoms of a calculation element, if its numbers are reliable."""
    electronic = element.findall("scstep")
    if not electronic:
        left_out[LEARNED] += 1
        return
    if len(electronic) >= int(header.tags.get("NELM", "60")):
        left_out[UNCONVERGED] += 1
        return
    try:
        cell = _rows(element, "structure/crystal/varray[@name='basis']")
        fractions = _rows(element, "structure/varray[@name='positions']")
        if cell is None or fractions is None:
            raise ValueError("a calculation without a structure")
        free_energy = float(_text(element, "energy/i[@name='e_fr_energy']"))
        pressure = STRESS_UNITS["kbar"] * float(header.tags.get("PSTRESS", "0"))
        free_energy -= pressure * abs(float(np.linalg.det(cell)))
        last = {
            name: float(_text(electronic[-1], f"energy/i[@name='{name}']"))
            for name in ("e_0_energy", "e_fr_energy")
        }
        forces = _rows(element, "varray[@name='forces']")
        stress = _rows(element, "varray[@name='stress']")
        if stress is not None:
            stress = -STRESS_UNITS["kbar"] * stress_tensor(stress)
    except ValueError:
        left_out[UNREADABLE] += 1
        return
    if stress is not None and header.tags.get("ISIF") in ("0", "1"):
        left_out[NO_STRESS] += 1
        stress = None
    yield labelled_atoms(
        header.symbols,
        fractions @ cell,
        cell,
        settings=header.settings(),
        stress=stress,
        energy=free_energy + last["e_0_energy"] - last["e_fr_energy"],
        free_energy=free_energy,
        forces=forces,
    )


def _text(element: ET.Element, path: str) -> str:
    """Text of the element at a path; empty if there is none."""
    return (element.findtext(path) or "").strip()


def _rows(element: ET.Element, path: str) -> Array | None:
    """Vectors of an array, or None if there is none."""
    found = element.find(path)
    if found is None:
        return None
    return np.array([[float(word) for word in (row.text or "").split()] for row in found])


FORMAT = Format(
    "vasp-xml",
    read_vasprun,
    steps=True,
    recognise=lambda head: b"<modeling>" in head,
    file_names=r".*vasprun.*\.xml.*",
)
