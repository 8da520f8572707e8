"""Dividing a dataset into training and validation structures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tesseral.data.isolated import isolated_rows
from tesseral.data.loading.config import SPLITS
from tesseral.data.store.read import Store, open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import Structure

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
            f"{store.path} has too few structures to split, {len(candidates)}; give two or more, "
            "or validation data in a separate file"
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


def write_split(
    source: str | os.PathLike[str],
    train: str | os.PathLike[str],
    test: str | os.PathLike[str],
    *,
    fraction: float = 0.1,
    method: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Split:
    """Write the two parts of a dataset as `split_store` divides it.

    Args:
        source: dataset file.
        train: dataset file to write, with the structures to train on.
        test: dataset file to write, with the others.
        fraction: approximate fraction of the structures to test with.
        method: as for `split_store`.
        seed: random seed of the choices.
        overwrite: replace files that exist.
        progress: callback with the number of structures written so far and the total.

    Raises:
        FileNotFoundError: the source does not exist.
        FileExistsError: an output exists and ``overwrite`` is not set.
        ValueError: the source cannot be split or is damaged, ``fraction`` is not between 0 and 1,
            or two of the files are the same.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` is {fraction}; it must be between 0 and 1")
    paths = [Path(train), Path(test)]
    if len({path.resolve() for path in (Path(source), *paths)}) < 3:
        raise ValueError(f"{source}, {train} and {test} must be three different files")
    store = open_store(source)
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; pass `overwrite` to replace it")
    split = split_store(store, method=method, fraction=fraction, seed=seed)
    done = 0

    def read(rows: Integers) -> Iterator[Structure]:
        nonlocal done
        for row in rows.tolist():
            yield store[row]
            done += 1
            if progress is not None:
                progress(done, len(store))

    for path, rows in zip(paths, (split.train, split.validation), strict=True):
        write_store(path, read(rows), attributes=store.attributes)
    return split


def split_folds(store: Store, *, folds: int, method: str, seed: int) -> list[Split]:
    """Split a store several times, so that each structure is in the validation part once.

    The folds have about the same size, and each has about the same part of every config type (or
    group, or source) unless whole groups are held out. Neighbours and copies are kept together as
    in `split_store`. Isolated atoms, and structures with an element that training would otherwise
    lack, are never held out.

    Args:
        store: the dataset.
        folds: number of splits.
        method: as for `split_store`.
        seed: random seed of the choices.

    Raises:
        ValueError: there are too few structures or groups.
    """
    candidates = np.nonzero(~isolated_rows(store, np.arange(len(store))))[0]
    rng = np.random.default_rng(seed)
    units, reason = _choose_groups(store, method, candidates, 1 / folds)
    kinds = np.zeros(len(store), dtype=np.int64)
    if units is None:
        kinds[candidates], reason = _series(store, candidates)
        units = _runs(kinds, candidates, folds)
    if method != "random":
        units = _joined(units, _families(store))
    fold = _dealt(units[candidates], kinds[candidates], folds, rng)
    splits = []
    for number in range(folds):
        chosen = np.zeros(len(store), dtype=bool)
        chosen[candidates[fold == number]] = True
        chosen = _keep_elements(store, np.arange(len(store)), chosen)
        if not chosen.any():
            raise ValueError(
                f"{store.path} has too few independent structures for {folds} folds "
                f"({len(np.unique(units[candidates]))} parts, {reason}); use fewer folds"
            )
        splits.append(Split(np.nonzero(~chosen)[0], np.nonzero(chosen)[0], reason))
    return splits


def _runs(kinds: Integers, candidates: Integers, folds: int) -> Integers:
    """Number of each structure's run, (G,): runs of one kind, a multiple of the folds of each."""
    units = np.arange(len(kinds))
    for kind in np.unique(kinds[candidates]):
        rows = candidates[kinds[candidates] == kind]
        pieces = folds * max(1, round(len(rows) / (folds * BLOCK)))
        for piece in np.array_split(rows, pieces):
            units[piece] = piece[:1]
    return units


def _joined(units: Integers, families: Integers) -> Integers:
    """Units after those with a member of the same family are made one."""
    nodes = units.max() + 1 + families
    size = int(nodes.max()) + 1
    links = coo_array((np.ones(len(units), dtype=bool), (units, nodes)), shape=(size, size))
    labels = connected_components(links, directed=False)[1]
    joined: Integers = labels[units].astype(np.int64)
    return joined


def _dealt(units: Integers, kinds: Integers, folds: int, rng: np.random.Generator) -> Integers:
    """Fold of each structure, so that the folds have equal parts of each kind and in all.

    Units of the same size are dealt in their order: those that follow each other, which may belong
    to the same part of a trajectory, go to different folds.
    """
    found, first, member, sizes = np.unique(
        units, return_index=True, return_inverse=True, return_counts=True
    )
    of_kind = np.zeros((int(kinds.max(initial=0)) + 1, folds), dtype=np.int64)
    place = np.empty(len(found), dtype=np.int64)
    for unit in np.argsort(-sizes, kind="stable"):  # the largest first
        part = of_kind[kinds[first[unit]]]
        place[unit] = np.lexsort((rng.random(folds), of_kind.sum(axis=0), part))[0]
        part[place[unit]] += sizes[unit]
    return place[member.reshape(-1)]


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


def _series(store: Store, candidates: Integers) -> tuple[Integers, str]:
    """Number of the series (group, config type or source) of each candidate; and the reason."""
    kind, series = "", np.zeros(len(candidates), dtype=np.int64)
    for name in ("source", "config_type", "group"):  # the last one that gives series is used
        texts = store.texts(name)
        numbers = _number(texts)[candidates]
        if any(texts) and 2 * len(np.unique(numbers)) <= len(candidates):
            kind, series = name, numbers
    reason = "in blocks of consecutive structures"
    return series, f"{reason} of each {kind.replace('_', ' ')}" if kind else reason


def _blocks(
    store: Store, candidates: Integers, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], str]:
    """Runs of consecutive structures of each group, config type or source."""
    series, reason = _series(store, candidates)
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
    family = _families(store)
    torn = chosen & np.isin(family, family[~chosen])
    while torn.any():
        chosen = chosen & ~np.isin(groups, groups[torn])
        torn = chosen & np.isin(family, family[~chosen])
    return chosen


def _families(store: Store) -> Integers:
    """Number of each structure's copies: structures with the same atoms and energy, (G,)."""
    atoms, energies = _atoms(store), store.energies / store.n_atoms
    order = np.lexsort((energies, atoms))
    same = np.diff(atoms[order]) == 0
    same &= np.abs(np.diff(energies[order])) < COPY  # NaN does not equal NaN
    family = np.empty(len(order), dtype=np.int64)
    family[order] = np.concatenate([[0], np.cumsum(~same)])
    return family
