"""Formats with a reader here, and detection of the format of a file by its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ase.io.formats import UnknownFileTypeError, filetype, open_with_compression

from tesseral.data.sources import (
    abinit,
    aenet,
    aims,
    array_files,
    ase_files,
    cp2k,
    deepmd,
    espresso,
    gpaw,
    ml_ab,
    mlip,
    outcar,
    runner,
    vaspout,
    vasprun,
)
from tesseral.data.sources.common import Format

FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        vasprun.FORMAT,
        espresso.FORMAT,
        aims.FORMAT,
        gpaw.TEXT,
        outcar.FORMAT,
        vaspout.FORMAT,
        ml_ab.FORMAT,
        gpaw.GPW,
        ase_files.TRAJECTORY,
        ase_files.DATABASE,
        ase_files.JSON_DATABASE,
        ase_files.LMDB,
        cp2k.OUTPUT,
        cp2k.TRAJECTORY,
        abinit.FORMAT,
        deepmd.FORMAT,
        mlip.FORMAT,
        runner.FORMAT,
        aenet.FORMAT,
        array_files.NPZ,
        array_files.HDF5,
    )
}
ESPRESSO_XML = b"quantum-espresso.org/ns/qes"
HEAD = 16384  # bytes; batch systems may print text before the code does
UNKNOWN = (
    "is in no format that is read here: outputs of VASP (also vaspout.h5 and ML_AB), pw.x, GPAW, "
    "CP2K, ABINIT and FHI-aims; extxyz, "
    ".traj, .db, .aselmdb; DeePMD folders, MLIP .cfg, input.data, aenet .xsf, .npz; HDF5 as of "
    "MACE, ANI and SPICE; JSON as of MPtrj, CHGNet, mlearn, pymatgen and NOMAD. Convert it to "
    "extxyz with ase or with dpdata (ABACUS, PWmat, SIESTA, ORCA, …), or name one of ase.io.read's "
    "formats with `format`"
)


def find_format(path: str) -> str:
    """Format of a file: a key of `FORMATS`, or another name of ASE's.

    Raises:
        ValueError: the file is Quantum ESPRESSO's XML, which does not contain the raw forces.
        ase.io.formats.UnknownFileTypeError: it is not recognised.
    """
    if Path(path.removesuffix(".gz")).suffix in (".xyz", ".extxyz"):
        # ASE would take POSCAR.extxyz for a VASP file.
        return known_calculation(path) or "extxyz"
    for each in FORMATS.values():
        if Path(path).suffix in each.suffixes:
            return each.name
    if vaspout.is_vaspout(path):
        return vaspout.FORMAT.name
    if deepmd.is_system(path):
        return deepmd.FORMAT.name
    if known := known_calculation(path):
        return known
    if Path(path).suffix == ".xml" and ESPRESSO_XML in Path(path).read_bytes()[:HEAD]:
        raise ValueError(
            "Quantum ESPRESSO's XML has no stresses of steps, and forces of fixed atoms are zeroed "
            "there; import the text output of pw.x"
        )
    form = str(filetype(path))
    if form in FORMATS and FORMATS[form].recognised_only:  # ASE takes any .out for pw.x's
        raise UnknownFileTypeError(f"{path} is not in the format {form}")
    return form


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
