"""Which reader a file needs, by what it holds rather than by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ase.io.formats import filetype, open_with_compression

from tesseral.data.sources.ase_files import read_aselmdb, read_database, read_trajectory
from tesseral.data.sources.common import Reader
from tesseral.data.sources.espresso import read_espresso
from tesseral.data.sources.gpaw import read_gpaw_text, read_gpw
from tesseral.data.sources.outcar import read_outcar
from tesseral.data.sources.vasprun import read_vasprun

# By ASE's names of the formats; "aselmdb" is ours.
CALCULATIONS: Mapping[str, Reader] = {
    "vasp-out": read_outcar,
    "vasp-xml": read_vasprun,
    "espresso-out": read_espresso,
    "gpaw-out": read_gpaw_text,
    "gpw": read_gpw,
    "traj": read_trajectory,
}
DATABASES: Mapping[str, Reader] = {
    "db": read_database,
    "json": read_database,
    "aselmdb": read_aselmdb,
}
GPAW_BANNERS = (b"  ___ ___ ___ _ _ _", b"\n |__ |  | ||/\\| -", b"\n |__||  | ||/\\| -")
ESPRESSO_XML = b"quantum-espresso.org/ns/qes"
HEAD = 16384  # bytes; batch systems may print something before a code does


def find_format(path: str) -> str:
    """The format of a file: a key of `CALCULATIONS` or `DATABASES`, or another name of ASE's.

    Raises:
        ValueError: it is Quantum ESPRESSO's XML, whose forces are not the raw ones.
        ase.io.formats.UnknownFileTypeError: it is not recognised.
    """
    if Path(path).suffix in (".aselmdb", ".lmdb"):
        return "aselmdb"
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
    if b"<modeling>" in head:
        return "vasp-xml"
    if b"Program PWSCF" in head:
        return "espresso-out"
    if any(banner in head for banner in GPAW_BANNERS):
        return "gpaw-out"
    if head.lstrip().startswith(b"vasp.") and (b"INCAR:" in head or b"POTCAR:" in head):
        return "vasp-out"
    return None
