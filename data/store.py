"""Reading a dataset file: random access to any number of structures without loading them.

A `Store` opens its file at the first access in each process, and closes it before a process forks
(an HDF5 handle must not cross a fork), so that it may be given to data-loader workers of any kind.
It pickles as its path. To write one, see `write_store`.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, SupportsIndex, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from tesseral.data.store_format import (
    ATOM_ARRAYS,
    FORMAT,
    FORMAT_VERSION,
    RESERVED,
    STRUCTURE_ARRAYS,
    TEXTS,
    ContentHash,
    canonical,
)
from tesseral.data.store_writer import StoreWriter, write_store
from tesseral.data.structures import Structure

__all__ = ["Store", "StoreWriter", "open_store", "write_store"]

BLOCK_ROWS = 65536

# A fork concerns the whole process, and so does this guard of it.
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _close_all() -> None:
    for store in tuple(_open_stores):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a dataset file made by `write_store` or ``train-potential data import``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a dataset of this package, is damaged, or was written by a newer
            version of it.
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
        attributes = dict(self._handle().attrs)
        self.content_hash = str(attributes["content_hash"])
        self.elements = tuple(int(z) for z in attributes["elements"])
        self.units = cast(dict[str, str], json.loads(attributes["units"]))
        self.attributes = {k: str(v) for k, v in attributes.items() if k not in RESERVED}
        self._length = int(self._dataset("n_atoms").shape[0])
        if expected_hash not in (None, self.content_hash):
            raise ValueError(f"{self.path} has changed since it was opened; open it again")

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the path; the file is opened anew where it is unpickled."""
        return _reopen, (str(self.path.absolute()), self.content_hash)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self)} structures)"

    def __getitem__(self, index: SupportsIndex) -> Structure:
        """One structure with its labels, read from the file.

        Raises:
            IndexError: the index is not in -len … len - 1.
            ValueError: the file is damaged there.
        """
        i = self._row(index)
        start, stop = (int(offset) for offset in self._array("offsets")[i : i + 2])
        try:
            return Structure(
                numbers=self._dataset("numbers")[start:stop].astype(np.int64),
                positions=self._dataset("positions")[start:stop],
                cell=self._dataset("cell")[i],
                pbc=self._array("pbc")[i].astype(bool),
                energy=float(self._array("energy")[i]),
                forces=self._dataset("forces")[start:stop],
                stress=self._dataset("stress")[i],
                **{name: self._text(name, i) for name in TEXTS},
            )
        except OSError as error:
            raise self._damaged(error) from error

    def __iter__(self) -> Iterator[Structure]:
        return (self[i] for i in range(len(self)))

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each structure, (G,)."""
        return self._array("n_atoms").astype(np.int64)

    @property
    def energies(self) -> NDArray[np.float64]:
        """Energy of each structure, (G,) eV; NaN where it is missing."""
        return self._array("energy").astype(np.float64)

    @property
    def pbc(self) -> NDArray[np.bool_]:
        """Periodic directions of each structure, (G, 3)."""
        return self._array("pbc").astype(bool)

    def texts(self, name: str) -> list[str]:
        """``config_type``, ``group``, ``theory`` or ``source`` of each structure."""
        table = self._table(name)
        return [table[i] for i in self._array(f"texts/{name}_index")]

    def compositions(self) -> NDArray[np.int64]:
        """Number of atoms of each of ``elements`` in each structure, (G, n_elements)."""
        offsets = self._array("offsets")
        columns = np.zeros(256, dtype=np.int64)
        columns[list(self.elements)] = np.arange(len(self.elements))
        counts = np.zeros((len(self), len(self.elements)), dtype=np.int64)
        for start, numbers in self._blocks("numbers"):
            owner = np.searchsorted(offsets, np.arange(start, start + len(numbers)), "right") - 1
            np.add.at(counts, (owner, columns[numbers]), 1)
        return counts

    def verify(self) -> None:
        """Read everything and compare it with the content hash.

        Raises:
            ValueError: the data are not those that were written.
        """
        content = ContentHash()
        for name, (dtype, _) in {**ATOM_ARRAYS, **STRUCTURE_ARRAYS}.items():
            for _, rows in self._blocks(name):
                content.update(name, canonical(rows, dtype))
        for name in TEXTS:
            content.update_texts(name, self.texts(name))
        counts = np.diff(self._array("offsets"))
        if content.digest() != self.content_hash or not np.array_equal(counts, self.n_atoms):
            raise ValueError(
                f"the data of {self.path} do not match their content hash: the file has been "
                "changed or damaged since it was written; import it again"
            )

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        self._datasets.clear()
        _open_stores.discard(self)
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def _handle(self) -> h5py.File:
        """The file, opened in this process."""
        if self._file is None or self._pid != os.getpid():
            self._datasets.clear()
            self._file = _open_file(self.path)
            self._pid = os.getpid()
            _open_stores.add(self)
        return self._file

    def _dataset(self, name: str) -> h5py.Dataset:
        """An array in the file."""
        handle = self._handle()
        if name not in self._datasets:
            if name not in handle:
                raise ValueError(f"{self.path} is damaged: it has no array {name!r}")
            self._datasets[name] = handle[name]
        return self._datasets[name]

    def _array(self, name: str) -> NDArray[Any]:
        """An array with a few bytes a structure, read at its first use and kept."""
        if name not in self._arrays:
            try:
                self._arrays[name] = self._dataset(name)[:]
            except OSError as error:
                raise self._damaged(error) from error
        return self._arrays[name]

    def _table(self, name: str) -> list[str]:
        """The different texts of one kind."""
        if name not in TEXTS:
            raise ValueError(f"{name!r} is not a text of a store; use {', '.join(TEXTS)}")
        if name not in self._tables:
            self._tables[name] = [text.decode() for text in self._dataset(f"texts/{name}")[:]]
        return self._tables[name]

    def _text(self, name: str, i: int) -> str:
        return self._table(name)[int(self._array(f"texts/{name}_index")[i])]

    def _blocks(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Start and rows of consecutive blocks of an array."""
        dataset = self._dataset(name)
        for start in range(0, dataset.shape[0], BLOCK_ROWS):
            try:
                yield start, dataset[start : start + BLOCK_ROWS]
            except OSError as error:
                raise self._damaged(error) from error

    def _row(self, index: SupportsIndex) -> int:
        """An index counted from the start."""
        i = int(index.__index__())
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is outside of {self.path} with {len(self)} structures")
        return i % len(self)

    def _damaged(self, error: OSError) -> ValueError:
        return ValueError(f"{self.path} is damaged and cannot be read ({error}); import it again")


def _reopen(path: str, content_hash: str) -> Store:
    return Store(path, expected_hash=content_hash)


def _open_file(path: Path) -> h5py.File:
    """Open an HDF5 file and check that it is a dataset that this version can read."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no dataset {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(
            f"{path} is not an HDF5 file; make a dataset of it with: "
            f"train-potential data import {path} -o {path.stem}.h5"
        )
    try:
        # Files are complete when they get their name: no locks, which some network disks refuse.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); import it again") from error
    found = file.attrs.get("format")
    number = file.attrs.get("format_version")
    if found != FORMAT:
        file.close()
        raise ValueError(f"{path} is an HDF5 file but not a tesseral dataset")
    if int(number) > FORMAT_VERSION:
        file.close()
        raise ValueError(
            f"{path} has format version {number}, but this version of tesseral reads up to "
            f"{FORMAT_VERSION}; upgrade tesseral"
        )
    return file
