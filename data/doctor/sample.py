"""Structures used by the checks: all of a small dataset, a random sample of a large one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.isolated import isolated_rows
from tesseral.data.store.read import Store
from tesseral.data.structures import Structure

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


class Sample(NamedTuple):
    """S structures of a dataset, in memory."""

    store: Store
    rows: Integers  # (S,) rows in the store, sorted
    structures: list[Structure]
    elements: tuple[int, ...]  # of the store, sorted
    counts: Integers  # (S, n_elements) atoms of each element
    n_atoms: Integers  # (S,)
    energies: Array  # (S,) eV/atom, NaN where missing
    volumes: Array  # (S,) Å³/atom, NaN where not periodic in three directions
    alone: NDArray[np.bool_]  # (S,) true for isolated atoms

    @property
    def complete(self) -> bool:
        """True if all structures of the dataset are included."""
        return len(self.rows) == len(self.store)


def read_sample(store: Store, max_atoms: int) -> Sample:
    """Read a dataset, or a reproducible random sample of about ``max_atoms`` atoms.

    Raises:
        ValueError: the file is damaged.
    """
    rows = np.arange(len(store))
    if store.n_atoms.sum() > max_atoms:
        order = np.random.default_rng(0).permutation(len(store))
        number = int(np.searchsorted(np.cumsum(store.n_atoms[order]), max_atoms))
        rows = np.sort(order[: max(number, 1)])
    structures = [store[int(row)] for row in rows]
    n_atoms = store.n_atoms[rows]
    volumes = [
        abs(np.linalg.det(s.cell)) / len(s.numbers) if s.pbc.all() else np.nan for s in structures
    ]
    return Sample(
        store=store,
        rows=rows,
        structures=structures,
        elements=store.elements,
        counts=store.compositions()[rows],
        n_atoms=n_atoms,
        energies=store.energies[rows] / n_atoms,
        volumes=np.array(volumes),
        alone=isolated_rows(store, rows),
    )


def has_forces(sample: Sample) -> NDArray[np.bool_]:
    """Mask of the structures with all forces, (S,)."""
    return np.array([bool(np.isfinite(s.forces).all()) for s in sample.structures])


def has_stress(sample: Sample) -> NDArray[np.bool_]:
    """Mask of the structures with a stress, (S,)."""
    return np.array([bool(np.isfinite(s.stress).all()) for s in sample.structures])


def median(values: Array) -> float:
    """Median without NaN; NaN for no values."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def scale(values: Array) -> float:
    """Standard deviation of the normal distribution with the median absolute deviation of values.

    NaN values are ignored; NaN without any value.
    """
    return 1.4826 * median(np.abs(values - median(values)))
