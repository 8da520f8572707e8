"""ASE's own files: databases, trajectories, and databases in LMDB (``.aselmdb``).

Results are those stored in the file; ASE's constraints are not applied to them.

The LMDB form is that of ase-db-backends and fairchem's ``AseDBDataset`` (OMat24, OMol25, …): one
file in which the key ``nextid`` contains the number after the last row, ``deleted_ids`` (optional)
a list of numbers, and each number, in ASCII, a row of an ASE database. All values are JSON of
ase.io.jsonio compressed by zlib. Only the package lmdb is needed here: ase-db-backends would
install clients of PostgreSQL and MySQL. Older LMDB files of OCP contain pickles, which can run any
code when they are opened, and are therefore rejected.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ase.db
from ase import Atoms
from ase.db.row import AtomsRow
from ase.io.jsonio import decode
from ase.io.trajectory import Trajectory

from tesseral.data.sources.common import Format
from tesseral.data.sources.settings import add_settings, settings_of_calculator


def read_trajectory(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Frames of an ASE trajectory."""
    with Trajectory(path) as trajectory:
        for atoms in trajectory:
            name = getattr(atoms.calc, "name", "")
            _add_settings(atoms, name, getattr(atoms.calc, "parameters", None))
            yield atoms


def read_database(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Rows of an ASE database, SQLite or JSON, with their key-value pairs and data."""
    for row in ase.db.connect(path).select():
        yield _row_atoms(row)


def read_aselmdb(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Rows of an ASE database in LMDB.

    Raises:
        ValueError: the package lmdb is missing, or the file has another form.
    """
    try:
        import lmdb
    except ImportError:
        raise ValueError("reading it needs the package lmdb; run: pip install lmdb") from None
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as environment:
        size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if Path(path).stat().st_size < size:  # reading further would kill the process
            raise ValueError(f"the file is truncated; it should have {size} bytes")
        with environment.begin() as transaction:
            count = _value(transaction.get(b"nextid"))
            deleted = set(_value(transaction.get(b"deleted_ids") or zlib.compress(b"[]")))
            for number in range(1, int(count)):
                if number not in deleted:
                    row = _value(transaction.get(str(number).encode()))
                    row.pop("constraints", None)  # unused, and possibly of unknown kinds
                    yield _row_atoms(AtomsRow({**row, "id": number}))


def _value(packed: bytes | None) -> Any:
    """Content of a value of the LMDB."""
    try:
        return decode(zlib.decompress(packed or b"").decode())
    except (zlib.error, ValueError):
        raise ValueError(
            "it is not an LMDB database of ASE (a row is missing or is not compressed JSON). Older "
            "ones of OCP contain pickles, which can run any code: convert them with fairchem"
        ) from None


def _row_atoms(row: AtomsRow) -> Atoms:
    """Atoms of a row; its key-value pairs and data may contain texts and labels."""
    atoms: Atoms = row.toatoms(add_additional_information=True)
    _add_settings(atoms, row.get("calculator", ""), row.get("calculator_parameters"))
    return atoms


def _add_settings(atoms: Atoms, name: str | None, parameters: Any) -> None:
    """Add the known settings of the calculator."""
    if isinstance(parameters, Mapping) and name not in (None, "", "unknown"):
        add_settings(atoms, settings_of_calculator(str(name), parameters))


TRAJECTORY = Format("traj", read_trajectory, steps=True)
DATABASE = Format("db", read_database)
JSON_DATABASE = Format("json", read_database)
LMDB = Format("aselmdb", read_aselmdb, suffixes=(".aselmdb", ".lmdb"), file_names=r".*\.aselmdb")
