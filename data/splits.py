"""Dividing a dataset into training and validation structures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.store import Store

Integers = NDArray[np.int64]


class Split(NamedTuple):
    """Rows of a store, both sorted, without common rows, neither empty."""

    train: Integers
    validation: Integers


def split_store(store: Store, *, method: str, fraction: float, seed: int) -> Split:
    """Split a store at random or by its groups.

    Isolated atoms always go to the training part: they fix the reference energies. So does what
    has an element that training would otherwise lack.

    Args:
        store: the dataset.
        method: ``random``, or ``group`` to keep structures of one group on one side. Structures
            without a group are then groups of their own.
        fraction: of the structures that are for validation, about; at least one.
        seed: of the shuffling.

    Raises:
        ValueError: an unknown method, or too few structures or groups to make two parts.
    """
    isolated = (store.n_atoms == 1) & ~store.pbc.any(axis=1)
    candidates = np.nonzero(~isolated)[0]
    if method == "random":
        groups = np.arange(len(store))
    elif method == "group":
        groups = _group_numbers(store)
    else:
        raise ValueError(f"split {method!r} is not known; use random or group")
    found, sizes = np.unique(groups[candidates], return_counts=True)
    if len(found) < 2:
        raise ValueError(
            f"{store.path} has {len(found)} {'groups' if method == 'group' else 'structures'} to "
            "split, but two are needed; give validation data in a file of their own"
        )
    order = np.random.default_rng(seed).permutation(len(found))
    wanted = max(1, round(fraction * len(candidates)))
    # Whole groups until the wanted number is reached as closely as possible; one is left over.
    reached = np.cumsum(sizes[order])
    number = int(np.argmin(np.abs(reached[:-1] - wanted))) + 1
    chosen = np.isin(groups, found[order[:number]]) & ~isolated
    chosen = _keep_elements(store, groups, chosen)
    if not chosen.any():
        raise ValueError(
            f"every choice of validation structures from {store.path} would take an element away "
            "from training; give validation data in a file of their own"
        )
    return Split(train=np.nonzero(~chosen)[0], validation=np.nonzero(chosen)[0])


def _keep_elements(store: Store, groups: Integers, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take structures (and their groups) with elements that training would lack out of a choice."""
    has = store.compositions() > 0
    lacking = has.any(axis=0) & ~has[~chosen].any(axis=0)
    needed = chosen & has[:, lacking].any(axis=1)
    return chosen & ~np.isin(groups, groups[needed])


def _group_numbers(store: Store) -> Integers:
    """A number for each structure's group, (G,)."""
    groups = store.texts("group")
    if not any(groups):
        raise ValueError(
            f"{store.path} has no groups to split by; import it with --group-key, or "
            "split at random"
        )
    table: dict[str, int] = {}
    numbers = [
        table.setdefault(group or f"\0{row}", len(table)) for row, group in enumerate(groups)
    ]
    return np.array(numbers, dtype=np.int64)
