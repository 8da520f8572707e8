"""Writing a dataset file in blocks, to a temporary file that is renamed when complete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from tesseral.data.store.checked_file import CheckedFile
from tesseral.data.store.format import (
    ATOM_ARRAYS,
    FORMAT,
    FORMAT_VERSION,
    HASH_BYTES,
    HASH_ROWS,
    RESERVED,
    STRUCTURE_ARRAYS,
    TEXTS,
    UNITS,
    Block,
    ContentHash,
    block_hash,
    cut_block,
    join_blocks,
    make_block,
)
from tesseral.data.structures import Structure, check_structure
from tesseral.files import write_whole
from tesseral.process import ctrl_c

ATOM_CHUNK = 1024  # rows read and decompressed together
STRUCTURE_CHUNK = 256
MAX_ATTRIBUTE = 60_000  # bytes; HDF5 keeps up to 64 kB in an attribute


def write_store(
    path: str | os.PathLike[str],
    structures: Iterable[Structure],
    *,
    attributes: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write structures to a dataset file, a block at a time.

    The file appears under its name only when it is complete, and then replaces an earlier one.

    Args:
        path: the file to write.
        structures: any iterable; it is not kept in memory.
        attributes: texts about the whole dataset: source, theory, license, …
        progress: callback after each structure, with the number of structures so far.

    Returns:
        The number of structures written.

    Raises:
        ValueError: there is no structure, a structure is not valid, or an attribute's name is
            reserved.
    """
    with StoreWriter(path, attributes=attributes) as writer:
        for structure in structures:
            writer.append(structure)
            if progress is not None:
                progress(writer.count)
    return writer.count


class StoreWriter:
    """Context manager that appends structures to a new dataset file.

    Leaving it without an error completes the file and gives it its name; an error removes the file.
    The same structures give the same bytes, whether they come singly or in blocks.

    Args:
        path: the file to write.
        attributes: texts about the whole dataset.
        temporary: for a file that is read once and soon deleted: written fast, not compressed, and
            not safe from a power failure.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        attributes: Mapping[str, str] | None = None,
        temporary: bool = False,
    ) -> None:
        self.path = Path(path)
        self.count = 0
        self._attributes = dict(sorted((attributes or {}).items()))
        _check_attributes(self._attributes)
        self._temporary = temporary
        self._exit = ExitStack()
        self._hash = ContentHash()
        self._tables: dict[str, dict[str, int]] = {name: {} for name in TEXTS}
        self._elements: set[int] = set()
        self._datasets: dict[str, h5py.Dataset] = {}
        self._waiting: list[Structure] = []
        self._blocks: list[Block] = []
        self._blocks_rows = self._total_atoms = 0

    def __enter__(self) -> StoreWriter:
        """Create the temporary file."""
        if not self.path.parent.is_dir():
            raise ValueError(f"the folder {self.path.parent} of {self.path.name} does not exist")
        with ExitStack() as stack:
            partial = stack.enter_context(write_whole(self.path, sync=not self._temporary))
            self._disk = CheckedFile(partial)
            stack.callback(self._disk.close)
            with self._writing():
                self._file = h5py.File(self._disk, "w", libver=("v110", "v110"))
                stack.push(self._complete)
                self._create_all()
            self._exit = stack.pop_all()
        return self

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Context of all work of HDF5: delays Ctrl-C, and raises the errors of the disk."""
        with ctrl_c() as stop:
            yield
        self._disk.check()
        stop()

    def _create_all(self) -> None:
        """Create the empty arrays."""
        for name, (dtype, shape) in {**ATOM_ARRAYS, **STRUCTURE_ARRAYS}.items():
            wide = len(shape) == 2  # read row by row; the others are read as a whole
            self._create(name, dtype, shape, STRUCTURE_CHUNK if wide else ATOM_CHUNK)
        self._create("offsets", "<i8", (), ATOM_CHUNK)
        for name in TEXTS:
            self._create(f"texts/{name}_index", "<i4", (), ATOM_CHUNK)
        self._create("block_hashes", "u1", (HASH_BYTES,), ATOM_CHUNK)
        _append(self._datasets["offsets"], np.zeros(1, dtype=np.int64))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Complete the file, or remove it after an error."""
        self._exit.__exit__(kind, error, traceback)

    def _complete(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the final arrays and attributes, unless there was an error, and close."""
        try:
            if kind is None:
                self._finish()
        finally:
            with self._writing():
                self._file.close()

    def append(self, structure: Structure) -> None:
        """Add one structure.

        Raises:
            ValueError: the structure is not valid.
        """
        check_structure(structure)
        self._waiting.append(structure)
        self.count += 1
        if len(self._waiting) == HASH_ROWS:
            self._gather()

    def extend(self, block: Block) -> None:
        """Add the structures of a block of another dataset, which are already checked."""
        self._gather()
        self.count += len(block.starts) - 1
        self._take(block)

    def _create(self, name: str, dtype: str, shape: tuple[int, ...], chunk: int) -> None:
        """Create an empty, growing array, compressed and with checksums."""
        self._datasets[name] = self._file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(chunk, *shape),
            dtype=dtype,
            compression=None if self._temporary else "gzip",
            compression_opts=None if self._temporary else 4,
            shuffle=not self._temporary,
            fletcher32=True,
        )

    def _gather(self) -> None:
        """Convert the pending structures to a block."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._take(make_block(waiting))

    def _take(self, block: Block) -> None:
        """Write whole blocks of HASH_ROWS structures, and keep the rest."""
        self._blocks.append(block)
        self._blocks_rows += len(block.starts) - 1
        if self._blocks_rows < HASH_ROWS:
            return
        joined = join_blocks(self._blocks)
        full = self._blocks_rows - self._blocks_rows % HASH_ROWS
        for start in range(0, full, HASH_ROWS):
            self._write(cut_block(joined, start, start + HASH_ROWS))
        rest = cut_block(joined, full, self._blocks_rows)
        self._blocks, self._blocks_rows = [rest], self._blocks_rows - full

    def _write(self, block: Block) -> None:
        """Append a block to all arrays and hashes."""
        self._hash.update(block)
        with self._writing():
            _append(self._datasets["block_hashes"], block_hash(block)[None])
            for name, rows in block.arrays.items():
                _append(self._datasets[name], rows)
            _append(self._datasets["offsets"], self._total_atoms + block.starts[1:])
            self._total_atoms += int(block.starts[-1])
            self._elements.update(np.unique(block.arrays["numbers"]).tolist())
            for name, table in self._tables.items():
                index = [table.setdefault(text, len(table)) for text in block.texts[name]]
                _append(self._datasets[f"texts/{name}_index"], np.array(index))

    def _finish(self) -> None:
        """Write the final arrays and attributes."""
        self._gather()
        if self.count == 0:
            raise ValueError(f"there are no structures to write to {self.path}")
        if self._blocks_rows:
            self._write(join_blocks(self._blocks))
        with self._writing():
            for name, table in self._tables.items():
                self._file.create_dataset(
                    f"texts/{name}", data=list(table), dtype=h5py.string_dtype("utf-8")
                )
            self._file.attrs.update(self._attributes)
            self._file.attrs["format"] = FORMAT
            self._file.attrs["format_version"] = FORMAT_VERSION
            self._file.attrs["units"] = json.dumps(UNITS, ensure_ascii=False)
            self._file.attrs["elements"] = np.array(sorted(self._elements), dtype="<i4")
            self._file.attrs["content_hash"] = self._hash.digest()
            self._file.attrs["tesseral_version"] = version("tesseral")


def _check_attributes(attributes: Mapping[str, str]) -> None:
    """Reject attributes that are reserved, not text or too long."""
    for name, text in attributes.items():
        if name in RESERVED:
            raise ValueError(f"the attribute {name!r} is reserved; use another name")
        if not isinstance(text, str) or len(text.encode()) > MAX_ATTRIBUTE:
            raise ValueError(f"the attribute {name!r} must be text of at most 60 kB")


def _append(dataset: h5py.Dataset, rows: Any) -> None:
    """Add rows at the end of an array."""
    start = dataset.shape[0]
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows
