"""Cells: test for a volume, and vectors for the non-periodic directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

THINNEST = 0.01  # Å; far below any lattice vector, far above rounding


def has_volume(cell: ArrayLike, pbc: ArrayLike = (True, True, True)) -> NDArray[np.bool_]:
    """Return whether the periodic vectors of cells are non-zero and linearly independent.

    The smallest singular value of the vectors, a length, must be `THINNEST` or more. It is at most
    the distance between opposite faces. A determinant is not sufficient: that of a cell with one
    vector of 0.001 Å is large if the others are long, and its number of neighbours is unbounded.

    Args:
        cell: (…, 3, 3) Å, finite; rows are lattice vectors.
        pbc: (3,) directions that must span a length, an area or a volume. Without any the result
            is true.

    Returns:
        Boolean array (…), one value for each cell.
    """
    vectors = np.asarray(cell, dtype=np.float64)[..., np.asarray(pbc, dtype=bool), :]
    if not vectors.shape[-2]:
        return np.ones(vectors.shape[:-2], dtype=bool)
    thickness = np.linalg.svd(vectors, compute_uv=False)[..., -1]
    return np.asarray(thickness >= THINNEST)


def complete_cell(cell: ArrayLike, pbc: ArrayLike) -> NDArray[np.float64]:
    """Complete the periodic vectors of a cell with orthonormal vectors normal to them.

    A completed cell is right-handed.

    Args:
        cell: (3, 3) Å; the vectors of non-periodic directions are ignored.
        pbc: (3,) bool.
    """
    periodic = np.asarray(pbc, dtype=bool)
    box = np.where(periodic[:, None], np.asarray(cell, dtype=np.float64), 0.0)
    if periodic.all():
        return box
    # The null space of the periodic vectors is spanned by the last right singular vectors.
    box[~periodic] = np.linalg.svd(box)[2][periodic.sum() :]
    if np.linalg.det(box) < 0:  # otherwise the sign of a vector could change between calls
        box[np.argmin(periodic)] *= -1
    return box
