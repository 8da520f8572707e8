"""Ways to know the uncertainty of a model, compared on sets inside and outside its training domain.

python -m benchmarks.uncertainty MODEL --train SET --inside SET --outside SET… [--ensemble MODEL…]

The model must know its uncertainty (``train-potential calibrate``). Each row of the table is a way
and a set: the rank correlation (Spearman) of the mean uncertainties and mean force errors of
structures, and of those of atoms; how well the uncertainty tells the structures (their mean, their
largest atom) from those of the inner set (area under the ROC curve), and how well (their mean)
those that are wrong, whose errors are above 99% of those of the inner set. If a set has no forces,
errors of structures are those of energies. The last columns are the parts of the errors below the
bounds for 90%, for the way that models use.
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
from scipy.stats import spearmanr

from tesseral.data.graph import edges_of
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import ModelCard, load_model
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.screen import print_table
from tesseral.training.uncertainty import roc_area

Floats = NDArray[np.float64]
NEIGHBORS, SAMPLE = 4, 4000  # of the nearest-neighbour distance
WRONG = 0.99  # quantile of the errors of the inner set; structures with larger ones are wrong


class Known(NamedTuple):
    """Results of a model for the N atoms of the G structures of a set."""

    features: Floats  # (N, D)
    species: NDArray[np.int64]  # (N,)
    structure: NDArray[np.int64]  # (N,)
    expected: Floats  # (N,) eV/Å
    forces: Floats  # (N, 3) eV/Å
    error: Floats  # (N,) eV/Å; NaN without a label
    energy: Floats  # (G, 2) eV/atom: error of the energy, and the expected one


def known(potential: MessagePassing, elements: Sequence[int], path: str) -> Known:
    """Results for a set."""
    parts = []
    store = open_store(path)
    energies = np.full((len(store), 2), np.nan)
    for batch in evaluation_loader(store, tuple(elements), potential.cutoff):
        found = predict(potential, batch.graph)
        with torch.no_grad():
            features = potential.with_features(batch.graph.species, edges_of(batch.graph))[1]
        expected = found.uncertainty
        if expected is None:
            expected = torch.full_like(found.atomic_energies, torch.nan)
        error = (found.forces - batch.labels.forces).norm(dim=1)
        row = batch.index[batch.graph.structure]
        parts.append((features.double(), batch.graph.species, row, expected, found.forces, error))
        both = (found.energy - batch.labels.energy).abs(), torch.full_like(found.energy, torch.nan)
        if potential.uncertainty is not None:
            count = len(found.energy)
            both = both[0], potential.uncertainty.energy(expected, batch.graph.structure, count)
        sizes = torch.bincount(batch.graph.structure)
        energies[batch.index.numpy()] = (torch.stack(both, dim=1) / sizes.unsqueeze(1)).numpy()
    return Known(*(torch.cat(part).numpy() for part in zip(*parts, strict=True)), energies)


def mahalanobis(train: Known, factor: Floats) -> Callable[[Known], Floats]:
    """Distance to the mean of the training atoms of the same element, in the kept metric."""
    kinds = np.unique(train.species)
    means = {kind: train.features[train.species == kind].mean(axis=0) for kind in kinds}

    def distances(one: Known) -> Floats:
        centers = np.stack([means[kind] for kind in one.species])
        return np.linalg.norm((one.features - centers) @ factor, axis=1)

    return distances


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
    factor = potential.uncertainty.factor.double().numpy()
    train = known(potential, card.elements, options.train)
    paths = [options.inside, *options.outside]
    sets = [known(potential, card.elements, path) for path in paths]
    ways = {
        "landmarks (kept)": [one.expected for one in sets],
        "mean": [*map(mahalanobis(train, factor), sets)],
        "rigidity": [*map(rigidity(train), sets)],
        "neighbours": [*map(nearest(train, factor), sets)],
    }
    if options.ensemble:
        members = [load_model(path)[0] for path in options.ensemble]
        ways[f"ensemble of {len(members)}"] = [
            spread([known(member, card.elements, path).forces for member in members])
            for path in paths
        ]
    lines = [
        [way, Path(path).stem, *row(one, values, sets[0], each[0]), *covered(one, card, number)]
        for number, (way, each) in enumerate(ways.items())
        for path, one, values in zip(paths, sets, each, strict=True)
    ]
    heads = ("way", "set", "error", "ρ structures", "ρ atoms", "ROC mean", "ROC max", "ROC wrong")
    print_table(Console(width=150), (*heads, "forces covered", "energies covered"), lines)


def spread(forces: Sequence[Floats]) -> Floats:
    """Standard deviation of the forces of an ensemble, (N,) eV/Å."""
    return np.sqrt(np.var(np.stack(forces), axis=0).sum(axis=1))


def structure_errors(one: Known, forces: bool) -> Floats:
    """Mean force error, eV/Å, or energy error, eV/atom, of each structure."""
    return by_structure(one, one.error)[0] if forces else one.energy[:, 0]


def row(one: Known, values: Floats, inside: Known, inner: Floats) -> list[str]:
    """Numbers of one way on one set."""
    forces = bool(np.isfinite(one.error).all())
    means = by_structure(one, values)
    errors = structure_errors(one, forces)
    cells = [f"{errors.mean():.3f}" if forces else f"{1000 * errors.mean():.0f} meV/atom"]
    cells.append(f"{spearmanr(means[0], errors).statistic:.2f}")
    cells.append(f"{spearmanr(values, one.error).statistic:.2f}" if forces else "–")
    if one is inside:
        return [*cells, "–", "–", "–"]
    known_means = by_structure(inside, inner)
    areas = [roc_area(*pair) for pair in zip(known_means, means, strict=True)]
    wrong = errors > np.quantile(structure_errors(inside, forces), WRONG)
    cells += [f"{area:.3f}" for area in areas]
    return [*cells, f"{roc_area(known_means[0], means[0][wrong]):.3f} of {wrong.mean():.0%}"]


def covered(one: Known, card: ModelCard, way: int) -> list[str]:
    """Parts of the errors of forces and energies below the bounds, for the way that models use."""
    pairs = [(one.error, one.expected, card.uncertainty["bound"])]
    pairs.append((*one.energy.T, card.uncertainty["energy_bound"]))
    cells = []
    for error, expected, bound in pairs:
        labelled = np.isfinite(error)
        usable = not way and bound and labelled.any()
        cells.append(f"{(error < bound * expected)[labelled].mean():.1%}" if usable else "–")
    return cells


if __name__ == "__main__":
    main()
