"""The layout of a dataset file, shared by its writer and its reader.

Atoms of all structures follow each other in flat arrays; ``offsets[i]:offsets[i + 1]`` are those
of structure i. Texts are kept once, in a table, with an index a structure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


class ContentHash:
    """Hash of all arrays and texts of a dataset, independent of the blocks they come in."""

    def __init__(self) -> None:
        names = [*ATOM_ARRAYS, *STRUCTURE_ARRAYS, *TEXTS]
        self._hashes = {name: hashlib.sha256() for name in names}

    def update(self, name: str, values: NDArray[Any]) -> None:
        """Add rows of an array."""
        self._hashes[name].update(np.ascontiguousarray(values).tobytes())

    def update_texts(self, name: str, texts: Iterable[str]) -> None:
        """Add texts, one a structure."""
        joined = "".join(f"{len(text)}:{text}" for text in texts)
        self._hashes[name].update(joined.encode())

    def digest(self) -> str:
        """Hexadecimal hash of everything added so far."""
        total = hashlib.sha256()
        for name, part in sorted(self._hashes.items()):
            total.update(f"{name}={part.hexdigest()};".encode())
        return total.hexdigest()


def canonical(values: Any, dtype: str) -> NDArray[Any]:
    """Values in the dtype of the file, with one bit pattern for NaN."""
    array = np.asarray(values, dtype=dtype)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.nan, array).astype(dtype)
    return array
