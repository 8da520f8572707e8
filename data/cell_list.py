"""Access to the compiled search for neighbours (``csrc/cell_list.cpp``) through ctypes."""

from __future__ import annotations

import ctypes
import sysconfig
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def library_path() -> Path:
    """Path of the compiled search after a build."""
    suffix = sysconfig.get_config_var("SHLIB_SUFFIX") or ".so"
    return Path(__file__).with_name("_cell_list" + suffix)


@lru_cache
def _library() -> ctypes.CDLL | None:
    """The shared library, or None if it was not built or cannot be loaded."""
    try:
        library = ctypes.CDLL(str(library_path()))
    except OSError:
        return None
    pointer = ctypes.c_void_p
    find, take = library.tesseral_cell_list, library.tesseral_cell_list_take
    find.argtypes = [pointer, ctypes.c_int64, *[pointer] * 3, ctypes.c_double, pointer]
    find.restype = ctypes.c_int64
    take.argtypes, take.restype = [pointer] * 5, None
    return library


def available() -> bool:
    """Whether the compiled search can be used."""
    return _library() is not None


def search(
    positions: Array, box: Array, inverse: Array, pbc: NDArray[np.bool_], cutoff: float
) -> tuple[Integers, Integers, Array]:
    """All pairs of atoms closer than the cutoff, sorted by receiver, then by sender.

    Args:
        positions: (n, 3) Å; n is positive.
        box: (3, 3) Å, rows are vectors; in non-periodic directions any vectors that complete it.
        inverse: inverse of the box.
        pbc: (3,) periodic directions.
        cutoff: cutoff (Å).

    Returns:
        Senders (E,), receivers (E,) and shifts (E, 3).

    Raises:
        MemoryError: there is no memory for the edges.
    """
    library = _library()
    assert library is not None, "the compiled search is missing; ask `available` first"
    places, rows, columns = (np.ascontiguousarray(each) for each in (positions, box, inverse))
    periodic = np.ascontiguousarray(pbc, dtype=np.uint8)
    kept = ctypes.c_void_p()
    edges = library.tesseral_cell_list(
        places.ctypes.data,
        len(places),
        *(each.ctypes.data for each in (rows, columns, periodic)),
        cutoff,
        ctypes.addressof(kept),
    )
    if edges < 0:
        raise MemoryError(f"no memory for the neighbours of {len(places)} atoms within {cutoff} Å")
    senders, receivers = np.empty(edges, np.int64), np.empty(edges, np.int64)
    shifts, scratch = np.empty((edges, 3)), np.empty(len(places), np.int64)
    arrays = (senders, receivers, shifts, scratch)
    library.tesseral_cell_list_take(kept, *(each.ctypes.data for each in arrays))
    return senders, receivers, shifts
