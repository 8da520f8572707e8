"""Isolated atoms: single atoms without a neighbour, whatever their periodic directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tesseral.data.neighbors import neighbor_list
from tesseral.data.store.read import Store

FAR = 7.0  # Å; no element has a nearest neighbour this far, so it serves without a known cutoff


def is_isolated(n_atoms: int, cell: ArrayLike, pbc: ArrayLike, cutoff: float = FAR) -> bool:
    """Whether a structure is one atom with no periodic image of it within the cutoff.

    Args:
        n_atoms: number of atoms.
        cell: (3, 3) Å, rows are lattice vectors.
        pbc: (3,) periodic directions.
        cutoff: cutoff (Å).
    """
    if n_atoms != 1 or not np.any(pbc):
        return n_atoms == 1
    return len(neighbor_list(np.zeros((1, 3)), cell, pbc, cutoff).senders) == 0


def isolated_rows(store: Store, rows: ArrayLike, cutoff: float = FAR) -> NDArray[np.bool_]:
    """Mask of the isolated atoms among rows of a dataset.

    Args:
        store: the dataset.
        rows: (S,) rows of structures.
        cutoff: cutoff (Å).
    """
    chosen = np.asarray(rows, dtype=np.int64)
    found: NDArray[np.bool_] = store.n_atoms[chosen] == 1
    for place in np.nonzero(found & store.pbc[chosen].any(axis=1))[0]:
        structure = store[int(chosen[place])]
        found[place] = is_isolated(1, structure.cell, structure.pbc, cutoff)
    return found
