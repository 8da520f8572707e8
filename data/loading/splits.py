"""Dividing a dataset into training and validation structures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.isolated import isolated_rows
from tesseral.data.loading.config import SPLITS
from tesseral.data.store.read import Store

Integers = NDArray[np.int64]

BLOCK = 10  # approximate number of validation structures in one block of a long series
MANY = 20  # number of groups from which whole groups are split off
TRIES = 20  # draws, until one keeps half of the requested structures
COPY = 1e-7  # eV/atom between energies of the same structure


class Split(NamedTuple):
    """Rows of a store, both sorted, without common rows, neither empty."""

    train: Integers
    validation: Integers
    reason: str = ""  # method of the split, and its reason


def split_store(store: Store, *, method: str, fraction: float, seed: int) -> Split:
    """Split a store so that neighbours of a trajectory are not in both parts.

    - ``group``: whole groups. A structure without a group is its own group.
    - ``blocks``: runs of consecutive structures, from each group or config type in proportion to
      its size. Only the ends of a run have a neighbour in the other part, and every kind of
      configuration is validated. In a shuffled set this is a random split by config type.
    - ``auto``: ``group`` if there are many groups, by name or by composition (a set of many
      molecules), none of them large; otherwise ``blocks``.
    - ``random``: single structures.

    Isolated atoms always belong to the training part, since they determine the reference energies.
    So do structures with an element that training would otherwise lack and, unless the split is
    random, structures with the same atoms and energy as a training structure, such as duplicates
    and equivalent strained cells.

    Args:
        store: the dataset.
        method: one of the above.
        fraction: approximate fraction of the structures for validation; at least one.
        seed: random seed of the choices.

    Raises:
        ValueError: an unknown method, or too few structures or groups to make two parts.
    """
    if method not in SPLITS:
        raise ValueError(f"unknown split {method!r}; use {', '.join(SPLITS)}")
    isolated = isolated_rows(store, np.arange(len(store)))
    candidates = np.nonzero(~isolated)[0]
    if len(candidates) < 2:
        raise ValueError(
            f"{store.path} has {len(candidates)} structures to split, but two are needed; give "
            "validation data in a separate file"
        )
    rng = np.random.default_rng(seed)
    groups, reason = _choose_groups(store, method, candidates, fraction)
    best = leaky = np.zeros(len(store), dtype=bool)
    for _ in range(1 if method == "random" else TRIES):
        if groups is not None:
            drawn = _whole_groups(store, groups, candidates, fraction, rng)
        else:
            drawn, reason = _blocks(store, candidates, fraction, rng)
        units = np.arange(len(store)) if groups is None else groups
        leaky = _keep_elements(store, units, drawn)
        chosen = leaky if method == "random" else _keep_copies(store, units, leaky)
        best = chosen if chosen.sum() > best.sum() else best
        if 2 * best.sum() >= fraction * len(candidates):
            break
    if not best.any():
        best, reason = leaky, f"{reason}, with copies of training structures among them"
    if not best.any():
        raise ValueError(
            f"every choice of validation structures from {store.path} would remove an element from "
            "training; give validation data in a separate file"
        )
    return Split(np.nonzero(~best)[0], np.nonzero(best)[0], reason)


def _choose_groups(
    store: Store, method: str, candidates: Integers, fraction: float
) -> tuple[Integers | None, str]:
    """Number of each structure's group, (G,), or None for blocks; and the reason."""
    if method == "random":
        return np.arange(len(store)), "at random, as requested"
    texts = store.texts("group")
    if method == "group":
        if not any(texts):
            raise ValueError(
                f"{store.path} has no groups to split by; import it with `group_key`, or "
                "split it in blocks"
            )
        return _number(texts), "whole groups, as requested"
    if method == "auto":
        choices = [
            (_atoms(store), "whole sets of structures of the same atoms, since there are many")
        ]
        if any(texts):
            choices.insert(0, (_number(texts), "whole groups, since there are many"))
        for groups, reason in choices:
            sizes = np.unique(groups[candidates], return_counts=True)[1]
            # Groups of one structure do not count; a large group cannot be split off.
            real = len(sizes) < 0.8 * len(candidates)
            if len(sizes) >= MANY and real and sizes.max() <= fraction * len(candidates):
                return groups, reason
    return None, ""


def _number(texts: list[str]) -> Integers:
    """Numbers of groups from their names; a structure without a name is its own group."""
    table: dict[str, int] = {}
    numbers = [table.setdefault(text or f"\0{row}", len(table)) for row, text in enumerate(texts)]
    return np.array(numbers, dtype=np.int64)


def _atoms(store: Store) -> Integers:
    """Number of each structure's composition."""
    return np.unique(store.compositions(), axis=0, return_inverse=True)[1].reshape(-1)


def _whole_groups(
    store: Store,
    groups: Integers,
    candidates: Integers,
    fraction: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Random groups that approach the requested number as closely as possible; one is left."""
    found, sizes = np.unique(groups[candidates], return_counts=True)
    if len(found) < 2:
        raise ValueError(
            f"{store.path} has {len(found)} groups to split, but two are needed; split it in "
            "blocks, or give validation data in a separate file"
        )
    order = rng.permutation(len(found))
    wanted = max(1, round(fraction * len(candidates)))
    reached = np.cumsum(sizes[order])
    number = int(np.argmin(np.abs(reached[:-1] - wanted))) + 1
    chosen = np.zeros(len(store), dtype=bool)
    chosen[candidates] = np.isin(groups[candidates], found[order[:number]])
    return chosen


def _blocks(
    store: Store, candidates: Integers, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], str]:
    """Runs of consecutive structures of each group, config type or source."""
    kind, series = "", np.zeros(len(candidates), dtype=np.int64)
    for name in ("source", "config_type", "group"):  # the last one that gives series is used
        texts = store.texts(name)
        numbers = _number(texts)[candidates]
        if any(texts) and 2 * len(np.unique(numbers)) <= len(candidates):
            kind, series = name, numbers
    parts = [candidates[series == number] for number in rng.permutation(np.unique(series))]
    wanted = max(1, round(fraction * len(candidates)))
    # Shares are rounded in the sum, so that many small series together give the requested number.
    ends = np.round(np.cumsum([len(part) for part in parts]) * wanted / len(candidates)).astype(int)
    chosen = np.zeros(len(store), dtype=bool)
    for part, number in zip(parts, np.diff(ends, prepend=0), strict=True):
        pieces = max(1, round(number / BLOCK))
        for piece, share in zip(
            np.array_split(part, pieces), _shares(int(number), pieces), strict=True
        ):
            if share:
                share = min(share, len(piece))
                start = int(rng.integers(len(piece) - share + 1))
                chosen[piece[start : start + share]] = True
    if chosen[candidates].all():
        chosen[candidates[-1]] = False
    reason = "in blocks of consecutive structures"
    if kind:
        reason += f" of each {kind.replace('_', ' ')}"
    return chosen, reason


def _shares(number: int, pieces: int) -> list[int]:
    """Divide a number into equal parts."""
    return [len(part) for part in np.array_split(np.arange(number), pieces)]


def _keep_elements(store: Store, groups: Integers, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove structures (and their groups) from a choice if training would lack their elements."""
    has = store.compositions() > 0
    lacking = has.any(axis=0) & ~has[~chosen].any(axis=0)
    needed = chosen & has[:, lacking].any(axis=1)
    return chosen & ~np.isin(groups, groups[needed])


def _keep_copies(store: Store, groups: Integers, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove structures (and their groups) from a choice if training has a duplicate."""
    energies = store.energies / store.n_atoms
    order = np.lexsort((energies, _atoms(store)))
    same = np.diff(_atoms(store)[order]) == 0
    same &= np.abs(np.diff(energies[order])) < COPY  # NaN does not equal NaN
    family = np.empty(len(order), dtype=np.int64)
    family[order] = np.concatenate([[0], np.cumsum(~same)])
    torn = chosen & np.isin(family, family[~chosen])
    while torn.any():
        chosen = chosen & ~np.isin(groups, groups[torn])
        torn = chosen & np.isin(family, family[~chosen])
    return chosen
