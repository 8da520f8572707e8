"""The formats that have a reader here, and which of them a file has: by content, not by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ase.io.formats import filetype, open_with_compression

from tesseral.data.sources import ase_files, espresso, gpaw, outcar, vasprun
from tesseral.data.sources.common import Format

FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        vasprun.FORMAT,
        espresso.FORMAT,
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
HEAD = 16384  # bytes; batch systems may print something before a code does


def find_format(path: str) -> str:
    """The format of a file: a key of `FORMATS`, or another name of ASE's.

    Raises:
        ValueError: it is Quantum ESPRESSO's XML, whose forces are not the raw ones.
        ase.io.formats.UnknownFileTypeError: it is not recognised.
    """
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
    """The format of a calculation's text, by its first lines; None if it is no such text.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with open_with_compression(path, "rb") as file:
            head = file.read(HEAD)
    except EOFError:  # a compressed file cut off so early holds no step
        return None
    return next((each.name for each in FORMATS.values() if each.recognise(head)), None)
