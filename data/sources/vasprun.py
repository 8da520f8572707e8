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
from xml.parsers.expat import errors

import numpy as np
from ase import Atoms
from ase.io.formats import open_with_compression

from tesseral.data.sources.common import (
    CUT_OFF,
    DAMAGED,
    LEARNED,
    UNREADABLE,
    Array,
    Format,
    labelled_atoms,
)
from tesseral.data.sources.vasp_settings import element_of, refusal, vasp_settings, vasp_stress
from tesseral.data.units import STRESS_UNITS

LARGE = ("dos", "eigenvalues", "projected")
# Errors of the XML parser at the end of a truncated file.
TRUNCATED = (
    errors.codes[errors.XML_ERROR_NO_ELEMENTS],
    errors.codes[errors.XML_ERROR_UNCLOSED_TOKEN],
    errors.codes[errors.XML_ERROR_UNCLOSED_CDATA_SECTION],
    errors.codes[errors.XML_ERROR_PARTIAL_CHAR],
)


@dataclass
class _Header:
    """Header before the first step."""

    version: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)
    potentials: dict[str, str] = field(default_factory=dict)  # titles of the POTCARs by element
    k_points: str = ""

    def settings(self) -> str:
        """Settings as text."""
        return vasp_settings(self.version, self.tags, self.potentials, self.k_points)


def read_vasprun(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Ionic steps of a vasprun.xml whose electronic steps converged.

    Args:
        path: the file, plain or compressed (.gz, .bz2, .xz).
        left_out: counter of the omissions.

    Raises:
        ValueError: the file does not list its atoms, or names no element of theirs.
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
    except ET.ParseError as error:
        left_out[CUT_OFF if error.code in TRUNCATED else DAMAGED] += 1
    except (EOFError, zlib.error, lzma.LZMAError):
        left_out[CUT_OFF] += 1


def _read_header(element: ET.Element, header: _Header) -> None:
    """Read the header from an element before the steps."""
    if element.tag == "generator":
        header.version = _text(element, "i[@name='version']")
    elif element.tag in ("incar", "parameters"):
        header.tags |= _tags(element)
    elif element.tag == "kpoints":
        generation = element.find("generation")
        if generation is not None and (grid := _text(generation, "v[@name='divisions']")):
            header.k_points = " x ".join(grid.split())
        else:
            count = len(element.findall("varray[@name='kpointlist']/v"))
            header.k_points = f"{count} irreducible"
    elif element.tag == "atominfo":
        kinds: dict[tuple[str, str], str] = {}  # elements by name and number of the kind
        for kind, row in enumerate(element.findall("array[@name='atomtypes']/set/rc"), 1):
            _, name, *others, title = ((cell.text or "").strip() for cell in row)
            symbol = element_of(title, name, float(others[0]) if others else None)
            kinds[name, str(kind)] = symbol
            header.potentials[symbol] = title
        for row in element.findall("array[@name='atoms']/set/rc"):
            # VASP may lose a letter of the names here ("r " for Zr), not of the titles.
            name, number = ((cell.text or "").strip() for cell in row)
            header.symbols.append(kinds.get((name, number)) or element_of("", name))


def _tags(element: ET.Element) -> dict[str, str]:
    """Tags of the INCAR or of all parameters.

    VASP 5 has two parameters NELM: that of the electronic convergence, and a 1 among the response
    functions. The sections of the electrons come first here, and the first value is taken.
    """
    sections = list(element)
    sections.sort(key=lambda section: not section.get("name", "").startswith("electronic"))
    found: dict[str, str] = {}
    for section in sections:
        for entry in section.iter():
            if entry.tag in ("i", "v") and (text := (entry.text or "").strip()):
                found.setdefault(entry.get("name", "").upper(), text)
    return found


def _step(element: ET.Element, header: _Header, left_out: Counter[str]) -> Iterator[Atoms]:
    """Yield the atoms of a calculation element, if its numbers are reliable."""
    # Linear response appends its own electronic steps behind the results.
    electronic = [step.tag for step in element][: _position(element, "structure")].count("scstep")
    if not electronic:
        left_out[LEARNED] += 1
        return
    if reason := refusal(header.tags, electronic):
        left_out[reason] += 1
        return
    try:
        cell = _rows(element, "structure/crystal/varray[@name='basis']")
        with np.errstate(invalid="ignore"):  # of numbers that are not finite, refused below
            positions = _rows(element, "structure/varray[@name='positions']") @ cell
        free_energy = float(_text(element, "energy/i[@name='e_fr_energy']"))
        pressure = STRESS_UNITS["kbar"] * float(header.tags.get("PSTRESS", "0"))
        free_energy -= pressure * abs(float(np.linalg.det(cell)))
        last = {
            name: float(_text(element, f"scstep[{electronic}]/energy/i[@name='{name}']"))
            for name in ("e_0_energy", "e_fr_energy")
        }
        kbar = element.find("varray[@name='stress']")
        atoms = labelled_atoms(
            header.symbols,
            positions,
            cell,
            settings=header.settings(),
            stress=vasp_stress(None if kbar is None else _vectors(kbar), header.tags, left_out),
            energy=free_energy + last["e_0_energy"] - last["e_fr_energy"],
            free_energy=free_energy,
            forces=_rows(element, "varray[@name='forces']"),
        )
    except ValueError:
        left_out[UNREADABLE] += 1
        return
    yield atoms


def _position(element: ET.Element, tag: str) -> int | None:
    """Number of elements before the first one with the tag; None if there is none."""
    return next((i for i, each in enumerate(element) if each.tag == tag), None)


def _text(element: ET.Element, path: str) -> str:
    """Text of the element at a path; empty if there is none."""
    return (element.findtext(path) or "").strip()


def _rows(element: ET.Element, path: str) -> Array:
    """Vectors of an array, (n, 3).

    Raises:
        ValueError: there is none, or one of its rows does not consist of three numbers.
    """
    found = element.find(path)
    if found is None:
        raise ValueError(f"there is no {path}")
    return _vectors(found)


def _vectors(array: ET.Element) -> Array:
    """Vectors of an array, (n, 3).

    Raises:
        ValueError: one of its rows does not consist of three numbers.
    """
    rows = [[float(word) for word in (row.text or "").split()] for row in array]
    if any(len(row) != 3 for row in rows):
        raise ValueError("a row does not consist of three numbers")
    return np.array(rows).reshape(-1, 3)


FORMAT = Format(
    "vasp-xml",
    read_vasprun,
    steps=True,
    recognise=lambda head: b"<modeling>" in head,
    file_names=r".*vasprun.*\.xml.*",
)
