"""Reading a dataset file: random access to any number of structures without loading them.

A `Store` opens its file at the first access in each process, and closes it before a process forks
(an HDF5 handle must not cross a fork), so that it can be passed to data-loader workers of any kind.
It pickles as its path. To write one, see `write_store`.

HDF5 reads and decompresses whole chunks, and each call costs as much as a small structure. A
structure is therefore read together with its neighbours, a segment of some 2000 atoms, and the last
segments are cached: access to structures near each other takes microseconds.
"""

from __future__ import annotations

import json
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, SupportsIndex, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from tesseral.data.store.format import (
    ATOM_ARRAYS,
    FORMAT,
    FORMAT_VERSION,
    RESERVED,
    STRUCTURE_ARRAYS,
    TEXTS,
    Block,
    block_bytes,
    structure_at,
)
from tesseral.data.store.layout import (
    check_attributes,
    check_block,
    check_heaps,
    check_index,
    check_objects,
    check_offsets,
)
from tesseral.data.store.write import StoreWriter, write_store
from tesseral.data.structures import Structure
from tesseral.files import one_line

__all__ = ["Store", "StoreWriter", "open_store", "write_store"]

READ_ROWS = 2048  # structures read together when all are read
SEGMENT = 2048  # atoms read together; a structure counts as four more for its cell and stress
KEPT_BYTES = 64e6  # memory of the cached segments

DAMAGE = (OSError, KeyError, RuntimeError, ValueError)  # raised by h5py and by our checks

REMEDY = "restore the file from a copy or import it again"

# A fork affects the whole process, and so does this guard.
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _close_all() -> None:
    for store in tuple(_open_stores):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a dataset file made by `write_store` or ``train-potential data import``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a dataset of this package, is damaged, or was written by a newer
            version.
    """
    return Store(path)


class Store:
    """Structures of a dataset file by index; see `open_store`."""

    def __init__(self, path: str | os.PathLike[str], *, expected_hash: str | None = None) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._pid = 0
        self._datasets: dict[str, h5py.Dataset] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._tables: dict[str, list[str]] = {}
        self._kept: OrderedDict[int, tuple[int, Block]] = OrderedDict()
        self._kept_bytes = 0
        handle = self._handle()
        try:
            attributes = dict(handle.attrs)
            check_attributes(attributes)
            check_objects(handle)
            self.content_hash = str(attributes["content_hash"])
            self.elements = tuple(int(z) for z in attributes["elements"])
            self.units = cast(dict[str, str], json.loads(attributes["units"]))
            self._has_hashes = "block_hashes" in handle  # missing in older files
        except DAMAGE as error:
            self.close()
            raise self._damaged(error) from error
        self.attributes = {k: str(v) for k, v in attributes.items() if k not in RESERVED}
        self._length = int(self._dataset("n_atoms").shape[0])
        if expected_hash not in (None, self.content_hash):
            raise ValueError(f"{self.path} has changed since it was opened; open it again")

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the path; the file is reopened after unpickling."""
        return _reopen, (str(self.path.absolute()), self.content_hash)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self)} structures)"

    def __getitem__(self, index: SupportsIndex) -> Structure:
        """Structure with its labels, read from the file.

        Raises:
            IndexError: the index is not in -len … len - 1.
            ValueError: the file is damaged there.
        """
        i = self._row(index)
        if (number := int(self.segments[i])) not in self._kept:
            self._keep(number)
        self._kept.move_to_end(number)
        start, block = self._kept[number]
        return structure_at(block, i - start)

    def __iter__(self) -> Iterator[Structure]:
        for start in range(0, len(self), READ_ROWS):
            block = self.block(start, min(start + READ_ROWS, len(self)))
            yield from (structure_at(block, i) for i in range(len(block.starts) - 1))

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each structure, (G,)."""
        return np.diff(self._offsets())

    @property
    def energies(self) -> NDArray[np.float64]:
        """Energy of each structure, (G,) eV; NaN where missing."""
        return self._array("energy").astype(np.float64)

    @property
    def pbc(self) -> NDArray[np.bool_]:
        """Periodic directions of each structure, (G, 3)."""
        return self._array("pbc").astype(bool)

    @property
    def segments(self) -> NDArray[np.int32]:
        """Segment number of each structure, (G,), in order; a segment is read together."""
        if "segments" not in self._arrays:
            places = self._offsets()[:-1] + 4 * np.arange(len(self))
            self._arrays["segments"] = (places // SEGMENT).astype(np.int32)
        return self._arrays["segments"]

    @property
    def block_hashes(self) -> NDArray[np.uint8] | None:
        """Hash of every HASH_ROWS structures; None in older files without these hashes."""
        return self._array("block_hashes") if self._has_hashes else None

    def block(self, start: int, stop: int) -> Block:
        """Structures ``start:stop`` as flat arrays, with one read for each array.

        Raises:
            ValueError: the file is damaged there.
        """
        offsets = self._offsets()[start : stop + 1]
        atoms, rows = slice(int(offsets[0]), int(offsets[-1])), slice(start, stop)
        try:
            arrays = {
                name: self._dataset(name)[atoms if name in ATOM_ARRAYS else rows]
                for name in (*ATOM_ARRAYS, *STRUCTURE_ARRAYS)
            }
            texts = {name: self._texts(name, rows) for name in TEXTS}
            block = Block(arrays, texts, offsets - offsets[0])
            check_block(block, self.elements, start)
        except DAMAGE as error:
            raise self._damaged(error, f"structures {start} to {stop - 1}") from error
        return block

    def texts(self, name: str) -> list[str]:
        """``config_type``, ``group``, ``theory`` or ``source`` of each structure."""
        try:
            return self._texts(name, slice(None))
        except DAMAGE as error:
            raise self._damaged(error, f"texts/{name}") from error

    def compositions(self) -> NDArray[np.int64]:
        """Number of atoms of each of ``elements`` in each structure, (G, n_elements)."""
        columns = np.zeros(256, dtype=np.int64)
        columns[list(self.elements)] = np.arange(len(self.elements))
        n_atoms, width = self.n_atoms, len(self.elements)
        counts = np.zeros((len(self), width), dtype=np.int64)
        offsets = self._offsets()
        for start in range(0, len(self), READ_ROWS):
            stop = min(start + READ_ROWS, len(self))
            numbers = self._numbers(offsets[start], offsets[stop])
            owner = np.repeat(np.arange(stop - start), n_atoms[start:stop])
            flat = np.bincount(owner * width + columns[numbers], minlength=(stop - start) * width)
            counts[start:stop] = flat.reshape(-1, width)
        return counts

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        self._datasets.clear()
        _open_stores.discard(self)
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def _handle(self) -> h5py.File:
        """File handle, opened in this process."""
        if self._file is None or self._pid != os.getpid():
            self._datasets.clear()
            self._file = _open_file(self.path)
            self._pid = os.getpid()
            _open_stores.add(self)
        return self._file

    def _dataset(self, name: str) -> h5py.Dataset:
        """Array in the file."""
        handle = self._handle()
        if name not in self._datasets:
            try:
                self._datasets[name] = handle[name]
            except DAMAGE as error:
                raise self._damaged(error) from error
        return self._datasets[name]

    def _offsets(self) -> NDArray[np.int64]:
        """First atom of each structure and the number of all atoms, (G + 1,)."""
        known = "offsets" in self._arrays
        offsets = self._array("offsets")
        if not known:
            try:
                check_offsets(offsets, len(self._dataset("numbers")))
            except DAMAGE as error:
                del self._arrays["offsets"]
                raise self._damaged(error) from error
        return offsets

    def _numbers(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Atomic numbers of consecutive atoms."""
        try:
            numbers: NDArray[np.uint8] = self._dataset("numbers")[start:stop]
        except DAMAGE as error:
            raise self._damaged(error) from error
        strange = np.setdiff1d(numbers, self.elements)
        if len(strange):
            raise self._damaged(ValueError(f"atomic number {strange[0]} is not in its elements"))
        return numbers

    def _array(self, name: str) -> NDArray[Any]:
        """Array with a few bytes per structure, read at its first use and cached."""
        if name not in self._arrays:
            try:
                self._arrays[name] = self._dataset(name)[:]
            except DAMAGE as error:
                raise self._damaged(error) from error
        return self._arrays[name]

    def _keep(self, number: int) -> None:
        """Read a segment into the cache, and drop those unused for longest."""
        ends = np.array([number, number + 1], dtype=np.int32)  # else all segments are converted
        start, stop = np.searchsorted(self.segments, ends).tolist()
        block = self.block(start, stop)
        self._kept[number] = (start, block)
        self._kept_bytes += block_bytes(block)
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._kept_bytes -= block_bytes(oldest)

    def _table(self, name: str) -> list[str]:
        """Distinct texts of one kind."""
        if name not in TEXTS:
            raise ValueError(f"{name!r} is not a text of a store; use {', '.join(TEXTS)}")
        if name not in self._tables:
            try:
                self._tables[name] = [text.decode() for text in self._dataset(f"texts/{name}")[:]]
            except DAMAGE as error:
                raise self._damaged(error) from error
        return self._tables[name]

    def _texts(self, name: str, rows: slice) -> list[str]:
        """Texts of some structures."""
        table, index = self._table(name), self._dataset(f"texts/{name}_index")
        if len(table) == 1:
            return table * len(range(*rows.indices(len(self))))
        numbers = index[rows]
        check_index(numbers, table, name)
        return [table[i] for i in numbers.tolist()]

    def _row(self, index: SupportsIndex) -> int:
        """Non-negative form of an index."""
        i = int(index.__index__())
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range: {self.path} has {len(self)} structures")
        return i % len(self)

    def _damaged(self, error: Exception, part: str = "it") -> ValueError:
        return ValueError(
            f"{self.path} is damaged: {part} cannot be read ({one_line(error)}); {REMEDY}"
        )


def _reopen(path: str, content_hash: str) -> Store:
    return Store(path, expected_hash=content_hash)


def _open_file(path: Path) -> h5py.File:
    """Open an HDF5 file and check that it is a dataset this version can read."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no dataset {path}")
    try:
        known = h5py.is_hdf5(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}); {REMEDY}") from error
    if not known:
        if path.suffix in (".h5", ".hdf5"):
            raise ValueError(f"{path} is not an HDF5 file, or its beginning is damaged; {REMEDY}")
        raise ValueError(
            f"{path} is not an HDF5 file; convert it to a dataset with import_structures, or "
            f"train-potential data import {path} -o {path.stem}.h5"
        )
    try:
        check_heaps(path)
        # Files are complete when they get their name: no locks, which some network disks reject.
        file = h5py.File(path, "r", locking=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is truncated or damaged ({one_line(error)}); {REMEDY}") from error
    try:
        found = file.attrs.get("format")
        number = file.attrs.get("format_version")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        file.close()
        raise ValueError(f"{path} is truncated or damaged ({one_line(error)}); {REMEDY}") from error
    if not isinstance(found, str) or found != FORMAT:
        file.close()
        raise ValueError(f"{path} is an HDF5 file but not a tesseral dataset")
    if not isinstance(number, (int, np.integer)) or number < 1:
        file.close()
        raise ValueError(
            f"{path} is damaged: its format version is {one_line(repr(number)):.40}; {REMEDY}"
        )
    if int(number) > FORMAT_VERSION:
        file.close()
        raise ValueError(
            f"{path} has format version {number}, but this version of tesseral reads up to "
            f"{FORMAT_VERSION}; upgrade tesseral"
        )
    return file
