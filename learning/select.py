"""Selection of the structures of a round: uncertain ones that differ from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from tesseral.calculators.ase import TesseralCalculator

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SHORTLIST = 10  # most uncertain structures for each that is selected


def describe(calculator: TesseralCalculator, structures: Sequence[Atoms]) -> tuple[Floats, Floats]:
    """Features of structures, and the largest expected force error of their atoms.

    The features of a structure are the mean, the smallest and the largest features of its atoms,
    in units of their variation in the training set where the model knows it.

    Args:
        calculator: calculator of the model.
        structures: G structures of its elements.

    Returns:
        (G, 3K) features and (G,) errors (eV/Å), NaN if the model does not know its uncertainty.
        Structures that the model cannot evaluate are infinitely uncertain.
    """
    rows, errors = [], []
    for atoms in structures:
        features = atomic_features(calculator, atoms)
        rows.append(np.concatenate([features.mean(axis=0), features.min(axis=0), features.max(0)]))
        try:
            calculator.calculate(atoms)
        except (ValueError, RuntimeError):
            errors.append(np.inf)
            continue
        expected = calculator.results.get("forces_uncertainty")
        errors.append(np.nan if expected is None else float(expected.max()))
    return np.array(rows), np.array(errors)


@torch.no_grad()
def atomic_features(calculator: TesseralCalculator, atoms: Atoms) -> Floats:
    """Features of the atoms, (N, K)."""
    features: Floats = calculator.get_features(atoms).double().cpu().numpy()
    return features


def select(
    features: Floats, uncertainties: Floats, count: int, known: Floats | None = None
) -> Integers:
    """Rows of structures to label: the farthest from each other among the most uncertain.

    Args:
        features: (G, F) of the candidates.
        uncertainties: (G,) of the candidates; NaN if they are not known.
        count: number of structures to select.
        known: (H, F) features of the structures that have labels.

    Returns:
        Up to ``count`` rows in the order of their selection. Copies of others are not selected.
    """
    order = np.argsort(np.where(np.isnan(uncertainties), -np.inf, uncertainties))[::-1]
    listed = order if np.isnan(uncertainties).all() else order[: SHORTLIST * count]
    rows = features[listed]
    distances = np.full(len(rows), np.inf)
    for point in () if known is None else known:
        distances = np.minimum(distances, np.linalg.norm(rows - point, axis=1))
    chosen: list[int] = []
    while len(chosen) < count:
        best = int(np.argmax(distances))  # the most uncertain at first, if nothing is known
        if not distances[best] > 0:
            break
        chosen.append(best)
        distances = np.minimum(distances, np.linalg.norm(rows - rows[best], axis=1))
    return np.asarray(listed[chosen], dtype=np.int64)
