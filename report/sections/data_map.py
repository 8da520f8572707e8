"""Section: map of the training, validation and test structures in two dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tesseral.data.isolated import isolated_rows
from tesseral.data.loading.splits import split_store
from tesseral.data.store.read import Store
from tesseral.deploy.modelfile import ModelCard
from tesseral.report.content import Note, Picture, Section
from tesseral.report.context import Context
from tesseral.report.figures import COLORS, GREY, finish, panels, picture
from tesseral.report.fingerprints import Fingerprints

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

OTHERS = "others"
MARKERS: dict[str, dict[str, Any]] = {
    "training": {"marker": "o", "s": 10, "alpha": 0.55, "linewidth": 0},
    "validation": {"marker": "^", "s": 26, "edgecolor": "black", "linewidth": 0.6},
    "test": {"marker": "s", "s": 20, "edgecolor": "black", "linewidth": 0.6},
}


class Points(NamedTuple):
    """Structures of a part of the data."""

    part: str  # training, validation or test
    rows: Integers  # (G,) in their store
    features: Floats  # (G, D), mean of the atoms of each structure
    types: NDArray[np.str_]  # (G,) config types


def data_map(context: Context) -> Section:
    """Structures along the two principal components of their mean features."""
    lead = (
        "Each point is a structure: the mean of the model's own features over its atoms, in the "
        "plane in which the training structures differ most. Test structures apart from all "
        "training structures are new to the model; a group without test structures is untested."
    )
    train, test = context.train, points_of("test", context.test_fingerprints, context.test)
    parts, notes = [test], []
    if train.store is None:
        notes.append(Note(f"Without the training set: {train.why}.", quiet=True))
    elif train.store.content_hash == context.test.content_hash:
        notes.append(Note("The test set is the training set.", quiet=True))
    else:
        known = points_of("training", context.train_fingerprints, train.store)
        apart = np.isin(known.rows, validation_rows(train.store, context.card))
        parts = [_some(known, ~apart), _some(known, apart)._replace(part="validation"), test]
        parts = [points for points in parts if len(points.rows)]
    plane = principal_plane(parts[0].features)
    if plane is None:
        return Section(lead, (Note("There are too few different structures for a map."),))
    center, axes, shares = plane
    places = [(points.features - center) @ axes for points in parts]
    counts = {points.part: len(points.rows) for points in parts}
    return Section(
        lead,
        (_picture(parts, places, shares), *notes),
        numbers={"structures": counts, "variance": shares},
    )


def points_of(part: str, found: Fingerprints, store: Store) -> Points:
    """Mean features of the structures with fingerprints; free atoms are left out."""
    rows, owner, counts = np.unique(found.structure, return_inverse=True, return_counts=True)
    sums = np.zeros((len(rows), found.features.shape[1]))
    np.add.at(sums, owner, found.features)
    points = Points(
        part, rows, sums / counts[:, None], np.array(store.texts("config_type"), str)[rows]
    )
    return _some(points, ~isolated_rows(store, rows))


def _some(points: Points, kept: NDArray[np.bool_]) -> Points:
    return Points(points.part, points.rows[kept], points.features[kept], points.types[kept])


def validation_rows(store: Store, card: ModelCard) -> Integers:
    """Rows of a training set that were split off for validation; none if this is not known."""
    nothing = np.zeros(0, dtype=np.int64)
    data, settings = card.training.get("data", {}), card.training.get("settings", {})
    fraction = settings.get("data.validation_fraction")
    same = data.get("train", {}).get("content_hash") == store.content_hash
    if not same or data.get("split", "file") == "file" or fraction is None:
        return nothing
    split = split_store(store, method=data["split"], fraction=fraction, seed=data["seed"])
    # With several levels of theory only some of them were used.
    used = len(split.validation) == data["validation"]["structures"]
    return split.validation if used else nothing


def principal_plane(features: Floats) -> tuple[Floats, Floats, list[float]] | None:
    """Centre (D,) and two axes (D, 2) of features (G, D), and the shares of the variance.

    Features are divided by their standard deviations. None if they vary along less than two axes.
    """
    center, spread = features.mean(axis=0), features.std(axis=0)
    scale = 1 / np.where(spread > 1e-6 * spread.max(initial=0), spread, np.inf)
    _, sizes, axes = np.linalg.svd((features - center) * scale, full_matrices=False)
    if len(sizes) < 2 or not sizes[1] > 1e-6 * sizes[0]:
        return None
    shares = np.square(sizes[:2]) / np.square(sizes).sum()
    return center, scale[:, None] * axes[:2].T, [float(share) for share in shares]


def _picture(parts: Sequence[Points], places: Sequence[Floats], shares: list[float]) -> Picture:
    figure, axes = panels(1, 1, height=4.4)
    axis = axes[0, 0]
    every = Counter(name for points in parts for name in points.types.tolist())
    named = [name for name, _ in every.most_common(len(COLORS) - 1)]  # grey is for the others
    colors = dict(zip(named, COLORS, strict=False))
    for points, place in zip(parts, places, strict=True):
        shown = [colors.get(name, GREY) for name in points.types.tolist()]
        axis.scatter(place[:, 0], place[:, 1], c=shown, **MARKERS[points.part])
    for points in parts:
        text = f"{points.part}: {len(points.rows)}"
        axis.scatter([], [], c="white", **{**MARKERS[points.part], "edgecolor": "black",
            "linewidth": 0.6, "alpha": 1}, label=text)  # fmt: skip
    if len(every) > 1:
        for name in named:
            axis.scatter([], [], c=colors[name], s=20, label=name or "without a type")
    if len(every) > len(named):
        axis.scatter([], [], c=GREY, s=20, label=OTHERS)
    first, second = (f"{100 * share:.0f}% of the variance" for share in shares)
    finish(axis, "", f"first component ({first})", f"second component ({second})")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture(
        figure,
        "map of the data",
        f"{_which(parts)} The plane shows {100 * sum(shares):.0f}% of the variance of the "
        f"{parts[0].part} structures: points far from each other are different, but points close "
        "to each other may still differ in what the plane does not show.",
    )


def _which(parts: Sequence[Points]) -> str:
    """Sentence about colours and symbols."""
    words = {"training": "circles", "validation": "triangles", "test": "squares"}
    symbols = ", ".join(f"{points.part} structures as {words[points.part]}" for points in parts)
    return f"Colours are config types; {symbols}."
