"""Selection of the structures of a round: uncertain ones that differ from each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.selection import KEPT, TIMES, described
from tesseral.data.selection import FarthestPoints
from tesseral.data.store.read import Store
from tesseral.data.structures import Structure


def select(
    calculator: TesseralCalculator,
    candidates: Store,
    known: Sequence[Store],
    count: int,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[Structure], list[float]]:
    """Structures to label: far from each other and from known ones, and uncertain.

    The runs of the exploration take turns, so that each temperature has its share: those at high
    temperatures are the furthest from all others. The structure of a run is the one with the
    largest product of its largest expected force error and its distance, in the features of the
    model, to all that are known or selected before from this run. Errors above the limit at which
    simulations stop count as much as the limit: the strangest structures are not those that matter
    most. The memory does not grow with the number of candidates.

    Args:
        calculator: calculator of the model.
        candidates: structures to select from.
        known: structures that have labels.
        count: number of structures to select.
        check: called after each batch.

    Returns:
        Up to ``count`` structures in the order of their selection, and the largest expected force
        error (eV/Å) of each, NaN if the model does not know its uncertainty.

    Raises:
        ValueError: the model does not support an element of the structures.
    """
    runs = np.array(candidates.texts("group"))
    points = {run: FarthestPoints(max(KEPT, TIMES * count)) for run in dict.fromkeys(runs)}
    potential, elements = calculator.potential, calculator.card.elements
    for store in known:
        for part in described(potential, store, elements):
            for each in points.values():
                each.add_known(part.points)
            check()
    errors = np.full(len(candidates), np.nan)
    for part in described(potential, candidates, elements):
        weights = np.ones(len(part.rows))
        if part.errors is not None:
            errors[part.rows] = part.errors
            weights = np.minimum(part.errors, calculator.stop or np.inf)
        for run, each in points.items():
            own = runs[part.rows] == run
            each.add(part.points[own], part.rows[own], weights[own])
        check()
    chosen = [each.choose(count).numbers.tolist() for each in points.values()]
    turns = [row for turn in zip_longest(*chosen) for row in turn if row is not None]
    rows = turns[:count]
    return [candidates[row] for row in rows], [float(errors[row]) for row in rows]
