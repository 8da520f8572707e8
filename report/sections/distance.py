"""Section: error against distance to the training set; copies of training structures.

Distances are between the invariant features of atoms, which describe their surroundings in the
model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tesseral.report.content import Note, Section, number, table
from tesseral.report.context import Context
from tesseral.report.figures import (
    BLUE,
    GREY,
    ORANGE,
    SHOWN_POINTS,
    dot_size,
    finish,
    panels,
    picture,
    plain_ticks,
)
from tesseral.report.fingerprints import Fingerprints
from tesseral.report.verdicts import decide, judge

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COPY = 0.01  # fraction of the median distance within the training set; closer atoms are copies
KEPT = 0.999  # fraction of the variance in the components that are kept
MOST_COMPONENTS = 12  # with more the search is slow and all distances are similar
FOLDS = 5


class Distances(NamedTuple):
    """Nearest-neighbour distances in feature space, in units of the spread of the training set."""

    test: Floats  # (N,) from each test atom to the training set
    train: Floats  # (M,) from training atoms to the training structures of other folds


def distance(context: Context) -> Section:
    """Distances from test atoms to training atoms, and the error against the distance."""
    lead = (
        "Difference between the surroundings of each test atom and those in the training set: the "
        "distance to the nearest training atom in the space of the model's own features, in units "
        "of the spread of the training set. Beyond the dashed line, the model extrapolates."
    )
    train = context.train
    if train.store is None:
        verdict = decide("extrapolation", "warn", "the training set is not available")
        return Section(lead, (Note(f"Not computed: {train.why}."),), (verdict,), {"why": train.why})
    test = context.test_fingerprints
    found = distances(test, context.train_fingerprints)
    typical = found.train[np.isfinite(found.train)]
    if len(typical) == 0:
        note = Note("The training set has too few structures to define a typical distance.")
        verdict = decide("extrapolation", "warn", "too few training structures")
        return Section(lead, (note,), (verdict,), {})
    limit = float(np.quantile(typical, 0.99))
    beyond = 100 * float((found.test > limit).mean())
    copies = _copies(found, test.structure, COPY * float(np.median(typical)))
    share = 100 * len(copies) / len(np.unique(test.structure))
    rows, bins = _bins(context, found, test.structure, limit)
    same = context.test.content_hash == train.store.content_hash
    shown = f"{share:.1f}% ({len(copies)} structures)"
    if same:
        shown = "test set and training set are the same"
    header = ("distance", "atoms", "median force error (meV/Å)", "90% are below")
    return Section(
        lead=f"{lead} Training set: {train.why}.",
        blocks=(_picture(context, found, test.structure, limit, bins), table(header, rows)),
        verdicts=(
            judge("extrapolation", beyond, shown=f"{beyond:.1f}% of the atoms beyond"),
            judge("duplicates", 100.0 if same else share, shown=shown),
        ),
        numbers={
            "train": str(train.store.path),
            "limit": limit,
            "median_within_training_set": float(np.median(typical)),
            "beyond_percent": beyond,
            "copies": copies,
            "bins": bins,
        },
    )


def distances(test: Fingerprints, train: Fingerprints) -> Distances:
    """Distance of each atom to the nearest training atom of its element.

    For each element, features are rotated to the principal components of the training set and
    divided by their spread. Distances within the training set are between parts of it, never
    within one structure, so that they compare with those of new structures.
    """
    far = np.full(len(test.species), np.inf)
    within = np.full(len(train.species), np.inf)
    for kind in np.unique(np.concatenate([test.species, train.species])):
        mine, known = test.species == kind, train.species == kind
        if not known.any():
            continue
        project = _whitening(train.features[known])
        points = project(train.features[known])
        if mine.any():
            far[mine] = cKDTree(points).query(project(test.features[mine]))[0]
        fold = train.structure[known] % FOLDS
        inner = np.full(len(points), np.inf)
        for part in range(FOLDS):
            if (fold == part).any() and (fold != part).any():
                tree = cKDTree(points[fold != part])
                inner[fold == part] = tree.query(points[fold == part])[0]
        within[known] = inner
    return Distances(far, within)


def _whitening(features: Floats) -> Callable[[Floats], Floats]:
    """A function that standardises features along the principal components of the given ones."""
    mean = features.mean(axis=0)
    _, sizes, axes = np.linalg.svd(features - mean, full_matrices=False)
    variance = np.square(sizes)
    total = variance.sum()
    if not total > 0:
        return lambda values: values - mean
    kept = int(np.searchsorted(np.cumsum(variance) / total, KEPT)) + 1
    kept = min(kept, MOST_COMPONENTS, int((variance > 1e-12 * variance[0]).sum()))
    scale = axes[:kept].T * (np.sqrt(len(features)) / sizes[:kept])
    return lambda values: (values - mean) @ scale


def _copies(found: Distances, structure: Integers, limit: float) -> list[int]:
    """Indices of test structures in which every atom is a copy of a training atom.

    Free atoms do not count: every set has them, to fix the zero of the energy.
    """
    return [
        int(row)
        for row, number in zip(*np.unique(structure, return_counts=True), strict=True)
        if number > 1 and found.test[structure == row].max() <= limit
    ]


def _errors(context: Context, structure: Integers) -> Floats:
    """Force errors (eV/Å) of the atoms with a fingerprint."""
    predictions = context.predictions
    inside = np.isin(predictions.structure, np.unique(structure))
    return predictions.force_error[inside]


def _bins(
    context: Context, found: Distances, structure: Integers, limit: float
) -> tuple[list[tuple[str, ...]], list[dict[str, Any]]]:
    """Errors of the atoms by quantiles of the distance, and beyond the limit."""
    off = _errors(context, structure)
    known = np.isfinite(off) & np.isfinite(found.test)
    off, far = off[known], found.test[known]
    inside = far[far <= limit]
    edges = [0.0, *(np.quantile(inside, (0.25, 0.5, 0.75)) if len(inside) else ()), limit, np.inf]
    rows: list[tuple[str, ...]] = []
    bins: list[dict[str, Any]] = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        part = off[(far >= low) & (far < high)]
        if len(part) == 0:
            continue
        median, most = (1000 * float(q) for q in np.quantile(part, (0.5, 0.9)))
        name = f"{low:.2f} – {high:.2f}" if np.isfinite(high) else f"beyond {low:.2f}"
        rows.append((name, f"{len(part)}", number(median), number(most)))
        middle = float(np.median(far[(far >= low) & (far < high)]))
        bins.append({"distance": middle, "atoms": len(part), "median": median, "q90": most})
    return rows, bins


def _picture(
    context: Context,
    found: Distances,
    structure: Integers,
    limit: float,
    bins: list[dict[str, Any]],
) -> Any:
    figure, axes = panels(1, 2, height=3.0)
    off = _errors(context, structure)
    known = np.flatnonzero(np.isfinite(off) & np.isfinite(found.test))
    known = np.random.default_rng(0).permutation(known)[:SHOWN_POINTS]
    axis = axes[0, 0]
    floor = 1e-3 * limit
    axis.plot(
        np.maximum(found.test[known], floor), np.maximum(1000 * off[known], 0.1), "o",
        ms=dot_size(len(known)),
        alpha=0.45, mew=0, color=BLUE,
    )  # fmt: skip
    axis.plot(
        [max(b["distance"], floor) for b in bins], [b["median"] for b in bins], "-o", ms=4,
        color="black", label="median",
    )  # fmt: skip
    axis.axvline(limit, color=GREY, linestyle="--", linewidth=0.9)
    axis.set(xscale="log", yscale="log")
    plain_ticks(axis.xaxis)
    plain_ticks(axis.yaxis)
    finish(
        axis,
        "error against distance",
        "distance to the training set",
        "force error (meV/Å)",
        legend=True,
    )
    axis = axes[0, 1]
    values = [part[np.isfinite(part)] for part in (found.train, found.test)]
    top = float(np.quantile(np.concatenate(values), 0.995))
    edges = np.linspace(0, max(top, 1.2 * limit), 50)
    for part, color, label in zip(
        values, (GREY, ORANGE), ("training set", "test set"), strict=True
    ):
        axis.hist(
            part, edges, weights=np.full(len(part), 100 / max(len(part), 1)), histtype="step",
            color=color, label=label, linewidth=1.3,
        )  # fmt: skip
    axis.axvline(limit, color=GREY, linestyle="--", linewidth=0.9)
    finish(
        axis,
        "distances of the atoms",
        "distance to the training set",
        "% of the atoms",
        legend=True,
    )
    return picture(
        figure,
        "error against distance to the training set",
        "Left: one dot per test atom. Right: distances of test atoms to the training set, and of "
        "one part of the training set to the rest. Dashed: 99% of the latter are below.",
    )
