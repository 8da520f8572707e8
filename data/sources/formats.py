"""Formats with a reader here, and detection of the format of a file by its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ase.io.formats import filetype, open_with_compression

from tesseral.data.sources import aims, ase_files, espresso, gpaw, outcar, vasprun
from tesseral.data.sources.common import Format

FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        vasprun.FORMAT,
        espresso.FORMAT,
        aims.FORMAT,
        gpaw.TEXT,
        outcar.FORMAT,
        gpaw.GPW,
        ase_files.TRAJECTORY,
        ase_files.DATABASE,
        ase_files.JSON_DATABASE,
        ase_files.LMDB,
    )
}
ESPRESSO_XML = b"quantum-espresso.org/ns/qes"
HEAD = 16384  # bytes; batch systems may print text before the code does


def find_format(path: str) -> str:
    """Format of a file: a key of `FORMATS`, or another name of ASE's.

    Raises:
        ValueError: the file is Quantum ESPRESSO's XML, which does not contain the raw forces.
        ase.io.formats.UnknownFileTypeError: it is not recognised.
    """
    if Path(path.removesuffix(".gz")).suffix in (".xyz", ".extxyz"):
        return "extxyz"  # ASE would take POSCAR.extxyz for a VASP file
    for each in FORMATS.values():
        if Path(path).suffix in each.suffixes:
            return each.name
    if known := known_calculation(path):
        return known
    if Path(path).suffix == ".xml" and ESPRESSO_XML in Path(path).read_bytes()[:HEAD]:
        raise ValueError(
            "Quantum ESPRESSO's XML has no stresses of steps, and forces of fixed atoms are zeroed "
            "there; import the text output of pw.x"
        )
    return str(filetype(path))


def known_calculation(path: str) -> str | None:
    """Format of a calculation's text output by its first lines; None for any other file.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with open_with_compression(path, "rb") as file:
            head = file.read(HEAD)
    except EOFError:  # a compressed file truncated so early contains no step
        return None
    return next((each.name for each in FORMATS.values() if each.recognise(head)), None)
