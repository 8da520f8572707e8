"""Several levels of theory in one dataset, and the shifts of their energies."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tesseral.data.loading.statistics import Statistics, fit_energies
from tesseral.data.store.read import Store, open_store
from tesseral.data.store.write import write_store

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def theory_levels(store: Store, rows: Integers, target: str) -> tuple[str, ...]:
    """Levels of theory of some structures, the target first, the others in order.

    Raises:
        ValueError: no structure has the target; the message names the existing levels.
    """
    texts = store.texts("theory")
    found = sorted({texts[row] for row in rows})
    if target not in found:
        there = ", ".join(text or "(none)" for text in found)
        raise ValueError(
            f"no structure of {store.path} to train on has the theory {target!r}; there are {there}"
        )
    return (target, *(text for text in found if text != target))


def theory_numbers(store: Store, theories: tuple[str, ...]) -> Integers:
    """Index of each structure's theory in ``theories``, (G,); -1 for any other."""
    place = {text: number for number, text in enumerate(theories)}
    return np.array([place.get(text, -1) for text in store.texts("theory")], dtype=np.int64)


def energy_shift(counts: Integers, residuals: Array, given: Array | None = None) -> Array:
    """Energies of elements, (n_elements,) eV, that explain the residuals.

    Args:
        counts: (G, n_elements) atoms of each element.
        residuals: (G,) eV, NaN without a label; the result is zero if all are NaN.
        given: (n_elements,) eV, energies that are known; NaN for those to fit.
    """
    free = np.ones(counts.shape[1], dtype=bool) if given is None else np.isnan(given)
    shift: Array = np.zeros(counts.shape[1]) if given is None else np.where(free, 0.0, given)
    known = np.isfinite(residuals) & (counts[:, free].sum(axis=1) > 0)
    if known.any():
        n_atoms = counts[known].sum(axis=1)
        rest = residuals[known] - counts[known] @ shift
        shift[free] = fit_energies(counts[known][:, free] / n_atoms[:, None], rest / n_atoms)
    return shift


def theory_references(
    store: Store,
    rows: Integers,
    theories: tuple[str, ...],
    elements: tuple[int, ...],
    statistics: Statistics,
    main: int,
) -> Array:
    """E0 of each element at each level of theory, (T, n_elements) eV.

    At one level they are those of the statistics; at the others a shift by least squares is added.
    Isolated atoms of the other levels are not used.

    Args:
        store: the dataset.
        rows: rows of the training structures.
        theories: levels of theory of the structures.
        elements: atomic numbers; may include more than those of the statistics.
        statistics: statistics of the structures of one level.
        main: index of this level.
    """
    own, bound = np.zeros(len(elements)), np.zeros(len(elements))
    place = [elements.index(z) for z in statistics.elements]
    own[place] = statistics.reference_energies
    bound[place] = statistics.binding_energies or 0.0
    counts = element_counts(store, elements)
    numbers = theory_numbers(store, theories)
    references = np.tile(own, (len(theories), 1))
    for level in range(len(theories)):
        if level != main:
            some = rows[numbers[rows] == level]
            rest = store.energies[some] - counts[some] @ (own + bound)
            references[level] += energy_shift(counts[some], rest)
    return references


def element_counts(store: Store, elements: tuple[int, ...]) -> Integers:
    """Atoms of each element in each structure, (G, n_elements), also for absent elements."""
    counts = np.zeros((len(store), len(elements)), dtype=np.int64)
    own = store.compositions()
    for column, z in enumerate(store.elements):
        if z in elements:
            counts[:, elements.index(z)] = own[:, column]
    return counts


def largest_level(numbers: Integers) -> int:
    """Level of theory with most structures."""
    return int(np.bincount(numbers).argmax())


def joined_with_replay(store: Store, replay: Store, ratio: float, seed: int, path: Path) -> Store:
    """Write all structures of a store, followed by some of another, to a new file.

    Args:
        store: the dataset.
        replay: dataset from which structures are added.
        ratio: number of structures of ``replay`` per structure of ``store``, as far as available.
        seed: random seed of the choice.
        path: the file to write.
    """
    number = min(len(replay), max(1, round(ratio * len(store))))
    chosen = np.random.default_rng(seed).choice(len(replay), number, replace=False)
    structures = chain(store, (replay[int(row)] for row in np.sort(chosen)))
    write_store(path, structures, attributes=store.attributes)
    return open_store(path)
