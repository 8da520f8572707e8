"""Checks of a dataset file: its objects when it is opened, its values when they are read.

A file may be damaged, or written by another program. Nothing is allocated or indexed with a size
that has not been compared with the other sizes in the file.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tesseral.data.store.format import (
    ATOM_ARRAYS,
    HASH_BYTES,
    HASH_ROWS,
    STRUCTURE_ARRAYS,
    TEXTS,
    UNITS,
    Block,
)

HEAP = b"GCOL\x01\x00\x00\x00"  # beginning of a heap of texts in HDF5
HEAP_BYTES = 8 << 20  # at the end of the file, where a store's texts are written


def check_heaps(path: Path) -> None:
    """Check the heaps of texts, which HDF5 would read for ever if the size of a free part were 0.

    Raises:
        ValueError: a heap is damaged in this way.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        start = data.find(HEAP, max(0, len(data) - HEAP_BYTES))
        while start >= 0:
            end = start + int.from_bytes(data[start + 8 : start + 16], "little")
            place = start + 16
            while place + 16 <= min(end, len(data)):
                used = data[place : place + 2] != b"\0\0"
                size = int.from_bytes(data[place + 8 : place + 16], "little")
                if not used and not size:
                    raise ValueError(f"its texts at byte {place} are lost")
                place += 16 + -(-size // 8) * 8 if used else size
            start = data.find(HEAP, start + 8)


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Check the attributes that are read.

    Raises:
        ValueError: one is missing or has another type or value.
    """
    if not isinstance(attributes.get("content_hash"), str):
        raise ValueError("it has no content hash")
    elements = np.asarray(attributes.get("elements", ()))
    if elements.ndim != 1 or elements.dtype.kind not in "iu":
        raise ValueError("its elements are not a list of atomic numbers")
    if np.any(elements < 1) or np.any(elements > 118) or np.any(np.diff(elements) < 1):
        raise ValueError(f"its elements {elements[:8].tolist()} are not ascending atomic numbers")
    try:
        units = json.loads(attributes.get("units", ""))
    except (TypeError, ValueError):
        units = None
    if units != UNITS:
        raise ValueError("its units are not those of this format")


def check_objects(file: h5py.File) -> None:
    """Check that all arrays are there, with their types and with sizes that agree.

    Raises:
        ValueError: an object is missing, of another kind or type, or has another size.
    """
    structures = len(_dataset(file, "n_atoms", ("<i4", ())))
    atoms = len(_dataset(file, "numbers", ("u1", ())))
    for name, form in {**ATOM_ARRAYS, **STRUCTURE_ARRAYS}.items():
        _check_rows(name, _dataset(file, name, form), atoms if name in ATOM_ARRAYS else structures)
    _check_rows("offsets", _dataset(file, "offsets", ("<i8", ())), structures + 1)
    for name in TEXTS:
        index = _dataset(file, f"texts/{name}_index", ("<i4", ()))
        _check_rows(f"texts/{name}_index", index, structures)
        table = _dataset(file, f"texts/{name}", None)
        if table.ndim != 1 or h5py.check_string_dtype(table.dtype) is None:
            raise ValueError(f"texts/{name} is not a list of texts")
    if "block_hashes" in file:
        hashes = _dataset(file, "block_hashes", ("u1", (HASH_BYTES,)))
        _check_rows("block_hashes", hashes, -(-structures // HASH_ROWS))


def check_offsets(offsets: NDArray[Any], atoms: int) -> None:
    """Check where the atoms of each structure begin, (G + 1,), of all ``atoms``.

    Raises:
        ValueError: a structure has no atoms, or has atoms that do not exist.
    """
    if offsets[0] != 0 or offsets[-1] != atoms:
        raise ValueError(f"offsets goes from {offsets[0]} to {offsets[-1]}, not 0 to {atoms}")
    wrong = np.flatnonzero((offsets[1:] <= offsets[:-1]) | (offsets[1:] > atoms))
    if len(wrong):
        raise ValueError(f"structure {wrong[0]} has no atoms according to its offsets")


def check_block(block: Block, elements: Sequence[int], first: int) -> None:
    """Check the values of consecutive structures, of which ``first`` is the first one.

    Raises:
        ValueError: an element is not one of the file's, or a number is not finite that must be.
    """
    known = np.zeros(256, dtype=bool)
    known[list(elements)] = True
    arrays, starts = block.arrays, block.starts
    if not np.array_equal(np.diff(starts), arrays["n_atoms"]):
        raise ValueError("n_atoms and offsets do not agree")
    strange: dict[str, Any] = {
        "numbers": ~known[arrays["numbers"]],
        "positions": ~np.isfinite(arrays["positions"]).all(axis=1),
        "forces": np.isinf(arrays["forces"]).any(axis=1),
        "cell": ~np.isfinite(arrays["cell"]).all(axis=(1, 2)),
        "pbc": np.asarray(arrays["pbc"] > 1).any(axis=1),
        "energy": np.isinf(arrays["energy"]),
        "stress": np.isinf(arrays["stress"]).any(axis=(1, 2)),
    }
    for name, wrong in strange.items():
        if wrong.any():
            row = int(wrong.argmax())
            value = arrays[name][row].tolist()
            if name in ATOM_ARRAYS:
                row = int(np.searchsorted(starts, row, side="right")) - 1
            raise ValueError(f"{name} of structure {first + row} is {value}")


def check_index(index: NDArray[Any], table: Sequence[str], name: str) -> None:
    """Check that indices are those of a table of texts.

    Raises:
        ValueError: one is not.
    """
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(table):
        raise ValueError(f"texts/{name}_index has values beyond the {len(table)} texts")


def _dataset(file: h5py.File, name: str, form: tuple[str, tuple[int, ...]] | None) -> h5py.Dataset:
    """Array with a type and a shape of its rows."""
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"{name} is not an array")
    if form is not None:
        dtype, row = form
        if found.dtype != np.dtype(dtype) or found.shape[1:] != row or found.ndim != 1 + len(row):
            raise ValueError(f"{name} has the type {found.dtype} and the shape {found.shape}")
    return found


def _check_rows(name: str, found: h5py.Dataset, rows: int) -> None:
    if len(found) != rows:
        raise ValueError(f"{name} has {len(found)} rows, not {rows}")
