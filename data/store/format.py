"""Layout of a dataset file, shared by its writer and its reader.

The atoms of all structures are consecutive in flat arrays; ``offsets[i]:offsets[i + 1]`` are those
of structure i. Texts are stored once, in a table, with an index for each structure.
``block_hashes`` contains a hash of every `HASH_ROWS` structures; older files lack it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.structures import Structure

FORMAT = "tesseral dataset"
FORMAT_VERSION = 1
UNITS = {
    "positions": "Å",
    "cell": "Å, rows are lattice vectors",
    "energy": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å³, positive under tension",
}

# name → (dtype, shape of one row); an atom's rows and a structure's rows
ATOM_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "numbers": ("u1", ()),
    "positions": ("<f8", (3,)),
    "forces": ("<f8", (3,)),
}
STRUCTURE_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "n_atoms": ("<i4", ()),
    "cell": ("<f8", (3, 3)),
    "pbc": ("u1", (3,)),
    "energy": ("<f8", ()),
    "stress": ("<f8", (3, 3)),
}
TEXTS = ("config_type", "group", "theory", "source")
RESERVED = {"format", "format_version", "units", "elements", "content_hash", "tesseral_version"}
HASH_ROWS = 256  # structures of one block hash; part of the format
HASH_BYTES = 16


class Block(NamedTuple):
    """Consecutive structures as flat arrays, in the dtypes of the file.

    Args:
        arrays: rows of each of ATOM_ARRAYS and STRUCTURE_ARRAYS.
        texts: one text per structure for each of TEXTS.
        starts: (structures + 1,) first atom of each structure in the block.
    """

    arrays: dict[str, NDArray[Any]]
    texts: dict[str, list[str]]
    starts: NDArray[np.int64]


def make_block(structures: Sequence[Structure]) -> Block:
    """Convert structures to a block."""
    counts = np.array([len(structure.numbers) for structure in structures])
    arrays = {}
    for name, (dtype, _) in {**ATOM_ARRAYS, **STRUCTURE_ARRAYS}.items():
        if name == "n_atoms":
            arrays[name] = canonical(counts, dtype)
            continue
        join = np.concatenate if name in ATOM_ARRAYS else np.stack
        arrays[name] = canonical(join([getattr(part, name) for part in structures]), dtype)
    texts = {name: [getattr(structure, name) for structure in structures] for name in TEXTS}
    return Block(arrays, texts, np.concatenate([[0], np.cumsum(counts)]))


def join_blocks(blocks: Sequence[Block]) -> Block:
    """Join consecutive blocks into one."""
    if len(blocks) == 1:
        return blocks[0]
    arrays = {name: np.concatenate([b.arrays[name] for b in blocks]) for name in blocks[0].arrays}
    texts = {name: [text for b in blocks for text in b.texts[name]] for name in TEXTS}
    return Block(arrays, texts, np.concatenate([[0], np.cumsum(arrays["n_atoms"], dtype=np.int64)]))


def cut_block(block: Block, start: int, stop: int) -> Block:
    """Structures ``start:stop`` of a block, as views."""
    atoms = slice(int(block.starts[start]), int(block.starts[stop]))
    rows = slice(start, stop)
    arrays = {
        name: values[atoms if name in ATOM_ARRAYS else rows]
        for name, values in block.arrays.items()
    }
    texts = {name: values[rows] for name, values in block.texts.items()}
    return Block(arrays, texts, block.starts[start : stop + 1] - block.starts[start])


def block_bytes(block: Block) -> int:
    """Memory of the arrays of a block."""
    return sum(values.nbytes for values in block.arrays.values())


def structure_at(block: Block, i: int) -> Structure:
    """Copy of structure ``i`` of a block."""
    arrays, texts = block.arrays, block.texts
    atoms = slice(block.starts[i], block.starts[i + 1])
    return Structure(
        numbers=arrays["numbers"][atoms].astype(np.int64),
        positions=arrays["positions"][atoms].copy(),
        cell=arrays["cell"][i].copy(),
        pbc=arrays["pbc"][i].astype(bool),
        energy=float(arrays["energy"][i]),
        forces=arrays["forces"][atoms].copy(),
        stress=arrays["stress"][i].copy(),
        config_type=texts["config_type"][i],
        group=texts["group"][i],
        theory=texts["theory"][i],
        source=texts["source"][i],
    )


class ContentHash:
    """Hash of all arrays and texts of a dataset, independent of the division into blocks."""

    def __init__(self) -> None:
        names = [*ATOM_ARRAYS, *STRUCTURE_ARRAYS, *TEXTS]
        self._hashes = {name: hashlib.sha256() for name in names}

    def update(self, block: Block) -> None:
        """Add structures."""
        for name, values in block.arrays.items():
            self._hashes[name].update(np.ascontiguousarray(values).data)
        for name, texts in block.texts.items():
            self._hashes[name].update(_joined(texts))

    def digest(self) -> str:
        """Hexadecimal hash of everything added so far."""
        total = hashlib.sha256()
        for name, part in sorted(self._hashes.items()):
            total.update(f"{name}={part.hexdigest()};".encode())
        return total.hexdigest()


def block_hash(block: Block) -> NDArray[np.uint8]:
    """Hash of one block, (HASH_BYTES,)."""
    total = hashlib.blake2b(digest_size=HASH_BYTES)
    for name in (*ATOM_ARRAYS, *STRUCTURE_ARRAYS):
        total.update(np.ascontiguousarray(block.arrays[name]).data)
    for name in TEXTS:
        total.update(_joined(block.texts[name]))
    return np.frombuffer(total.digest(), dtype=np.uint8)


def canonical(values: Any, dtype: str) -> NDArray[Any]:
    """Values in the dtype of the file, with one bit pattern for NaN."""
    array = np.asarray(values, dtype=dtype)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.nan, array).astype(dtype)
    return array


def _joined(texts: Iterable[str]) -> bytes:
    """Texts as bytes that also encode the end of each text."""
    return "".join(f"{len(text)}:{text}" for text in texts).encode()
