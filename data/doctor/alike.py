"""How large a residual is usual among structures like each one."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from tesseral.data.doctor.ridge import Design
from tesseral.data.doctor.sample import Array

CLOSEST = 5
ALIKE = 25  # structures that tell how large a residual is usual


def local_scale(design: Design, norms: Array) -> Array:
    """How large a residual is usual among structures like each one, (S,).

    The median over the structures closest in the ranks of force, volume and energy.

    Args:
        design: of the structures.
        norms: (S,) residuals; NaN where there is none.
    """
    known = np.isfinite(norms)
    if known.sum() == 0:
        return np.full(len(norms), np.nan)
    tree = cKDTree(design.alike[known])
    _, near = tree.query(design.alike, k=min(ALIKE, int(known.sum())))
    usual = np.median(norms[known][near.reshape(len(norms), -1)], axis=1)
    # A few structures that the model happens to meet exactly make no scale.
    floor = 0.2 * float(np.median(norms[known]))
    return np.where(usual > floor, usual, floor)


def local_center(design: Design, norms: Array) -> Array:
    """The median residual of the few structures most like each one, (S,); see `local_scale`."""
    known = np.isfinite(norms)
    if known.sum() == 0:
        return np.full(len(norms), np.nan)
    _, near = cKDTree(design.alike[known]).query(design.alike, k=min(CLOSEST, int(known.sum())))
    center: Array = np.median(norms[known][near.reshape(len(norms), -1)], axis=1)
    return center
