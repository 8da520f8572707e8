"""Ways to know the uncertainty of a model, compared on sets inside and outside its training domain.

python -m benchmarks.uncertainty MODEL --train SET --inside SET --outside SET… [--ensemble MODEL…]

The model must know its uncertainty (``train-potential calibrate``). Each row of the table is a way
and a set: the rank correlation (Spearman) of the mean uncertainties and mean force errors of
structures, and of those of atoms; how well the uncertainty tells the structures (their mean, their
largest atom) and atoms of the set from those of the inner set (area under the ROC curve). For the
way that models use, ``coverage`` is the part of the force errors below the bound for 90%.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.spatial import cKDTree
from scipy.stats import rankdata, spearmanr

from tesseral.data.graph import edges_of
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.screen import print_table

Floats = NDArray[np.float64]
NEIGHBORS, SAMPLE = 4, 4000  # of the nearest-neighbour distance


class Known(NamedTuple):
    """Results of a model for the N atoms of a set."""

    features: Floats  # (N, D)
    species: NDArray[np.int64]  # (N,)
    structure: NDArray[np.int64]  # (N,)
    expected: Floats  # (N,) eV/Å
    forces: Floats  # (N, 3) eV/Å
    error: Floats  # (N,) eV/Å; NaN without a label


def known(potential: MessagePassing, elements: Sequence[int], path: str) -> Known:
    """Results for a set."""
    parts = []
    for batch in evaluation_loader(open_store(path), tuple(elements), potential.cutoff):
        found = predict(potential, batch.graph)
        with torch.no_grad():
            features = potential.with_features(batch.graph.species, edges_of(batch.graph))[1]
        expected = found.uncertainty
        if expected is None:
            expected = torch.full_like(found.atomic_energies, torch.nan)
        error = (found.forces - batch.labels.forces).norm(dim=1)
        row = batch.index[batch.graph.structure]
        parts.append((features.double(), batch.graph.species, row, expected, found.forces, error))
    return Known(*(torch.cat(part).numpy() for part in zip(*parts, strict=True)))


def rigidity(train: Known) -> Callable[[Known], Floats]:
    """Prediction rigidity of atoms, from the covariance of the summed features of structures."""
    count = int(train.structure.max()) + 1
    sums = np.zeros((count, train.features.shape[1]))
    np.add.at(sums, train.structure, train.features)
    sums /= np.sqrt(np.maximum(np.bincount(train.structure, minlength=count), 1))[:, None]
    variances, directions = np.linalg.eigh(sums.T @ sums / count)
    factor = directions / np.sqrt(np.maximum(variances, 0) + 1e-5 * variances.mean())
    return lambda one: np.linalg.norm(one.features @ factor, axis=1)


def nearest(train: Known, factor: Floats) -> Callable[[Known], Floats]:
    """Mean distance to the nearest training atoms of the same element, in the kept metric."""
    trees = {}
    for kind in np.unique(train.species):
        rows = train.features[train.species == kind] @ factor
        trees[kind] = cKDTree(rows[:: max(1, len(rows) // SAMPLE)])

    def distances(one: Known) -> Floats:
        found = np.full(len(one.species), np.inf)
        for kind, tree in trees.items():
            mask = one.species == kind
            found[mask] = tree.query(one.features[mask] @ factor, NEIGHBORS)[0].mean(axis=1)
        return found

    return distances


def roc_area(inside: Floats, outside: Floats) -> float:
    """Probability that a value outside is larger than one inside."""
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    count = len(outside)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(inside)))


def by_structure(one: Known, values: Floats) -> tuple[Floats, Floats]:
    """Mean and largest value of each structure."""
    _, row = np.unique(one.structure, return_inverse=True)
    largest = np.zeros(row.max() + 1)
    np.maximum.at(largest, row, values)
    return np.bincount(row, values) / np.bincount(row), largest


def main() -> None:
    """Compare the ways and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uncertainty")
    parser.add_argument("model")
    for name in ("train", "inside"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--outside", nargs="*", default=[])
    parser.add_argument("--ensemble", nargs="*", default=[])
    options = parser.parse_args()
    potential, card = load_model(options.model)
    assert potential.uncertainty is not None, "the model does not know its uncertainty"
    bound = potential.uncertainty.calibration.bound
    train = known(potential, card.elements, options.train)
    paths = [options.inside, *options.outside]
    sets = [known(potential, card.elements, path) for path in paths]
    ways = {
        "distance (kept)": [one.expected for one in sets],
        "rigidity": [*map(rigidity(train), sets)],
        "neighbours": [*map(nearest(train, potential.uncertainty.factor.double().numpy()), sets)],
    }
    if options.ensemble:
        members = [load_model(path)[0] for path in options.ensemble]
        ways[f"ensemble of {len(members)}"] = [
            spread([known(member, card.elements, path).forces for member in members])
            for path in paths
        ]
    lines = [
        [way, Path(path).stem, *row(one, values, sets[0], each[0]), covered(one, bound, number)]
        for number, (way, each) in enumerate(ways.items())
        for path, one, values in zip(paths, sets, each, strict=True)
    ]
    heads = ("way", "set", "error", "ρ structures", "ρ atoms", "ROC mean", "ROC max", "ROC atoms")
    print_table(Console(), (*heads, "coverage"), lines)


def spread(forces: Sequence[Floats]) -> Floats:
    """Standard deviation of the forces of an ensemble, (N,) eV/Å."""
    return np.sqrt(np.var(np.stack(forces), axis=0).sum(axis=1))


def row(one: Known, values: Floats, inside: Known, inner: Floats) -> list[str]:
    """Numbers of one way on one set."""
    cells = [f"{np.nanmean(one.error):.3f}" if np.isfinite(one.error).any() else "–"]
    means = by_structure(one, values)
    if np.isfinite(one.error).all():
        errors = by_structure(one, one.error)[0]
        pairs = ((means[0], errors), (values, one.error))
        cells += [f"{spearmanr(*pair).statistic:.2f}" for pair in pairs]
    else:
        cells += ["–", "–"]
    if one is inside:
        return [*cells, "–", "–", "–"]
    known_means = by_structure(inside, inner)
    areas = [roc_area(*pair) for pair in zip(known_means, means, strict=True)]
    return [*cells, *(f"{area:.3f}" for area in (*areas, roc_area(inner, values)))]


def covered(one: Known, bound: float, way: int) -> str:
    """Part of the errors below the bound, for the way that models use."""
    labelled = np.isfinite(one.error)
    if way or not labelled.any():
        return "–"
    return f"{(one.error < bound * one.expected)[labelled].mean():.1%}"


if __name__ == "__main__":
    main()
