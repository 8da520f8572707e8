"""Cells: whether they have a volume, and vectors for the directions that are not periodic."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

THINNEST = 0.01  # Å; far below any lattice, far above rounding


def has_volume(cell: ArrayLike, pbc: ArrayLike = (True, True, True)) -> NDArray[np.bool_]:
    """Whether the periodic vectors of cells are neither zero nor linearly dependent.

    The smallest singular value of the vectors, a length, must be `THINNEST` or more. It is at most
    the distance between opposite faces. A determinant would not do: that of a cell with one vector
    of 0.001 Å is large if the others are long, and its neighbours have no end.

    Args:
        cell: (…, 3, 3) Å, finite; rows are lattice vectors.
        pbc: (3,) directions that must span a length, an area or a volume; true if there is none.

    Returns:
        (…), a truth value for each cell.
    """
    vectors = np.asarray(cell, dtype=np.float64)[..., np.asarray(pbc, dtype=bool), :]
    if not vectors.shape[-2]:
        return np.ones(vectors.shape[:-2], dtype=bool)
    thickness = np.linalg.svd(vectors, compute_uv=False)[..., -1]
    return np.asarray(thickness >= THINNEST)


def complete_cell(cell: ArrayLike, pbc: ArrayLike) -> NDArray[np.float64]:
    """The periodic vectors of a cell, with orthonormal vectors normal to them for the others.

    A cell that gets such vectors is right-handed.

    Args:
        cell: (3, 3) Å; the vectors of directions that are not periodic do not matter.
        pbc: (3,) bool.
    """
    periodic = np.asarray(pbc, dtype=bool)
    box = np.where(periodic[:, None], np.asarray(cell, dtype=np.float64), 0.0)
    if periodic.all():
        return box
    # The null space of the periodic vectors is spanned by the last right singular vectors.
    box[~periodic] = np.linalg.svd(box)[2][periodic.sum() :]
    if np.linalg.det(box) < 0:  # else the sign of a vector could change from one call to the next
        box[np.argmin(periodic)] *= -1
    return box
