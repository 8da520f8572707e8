"""Section: error against distance to the training set; copies of training structures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from tesseral.report.fingerprint import Distances, distances, fingerprints
from tesseral.report.verdicts import decide, judge

Floats = NDArray[np.float64]

COPY = 0.01  # of the median distance within the training set: closer is the same


def distance(context: Context) -> Section:
    """How far test atoms are from training atoms, and what that does to the error."""
    lead = (
        "How unlike anything in the training set an atom's surroundings are, in the model's own "
        "features: the distance to the nearest training atom, in units of the training set's "
        "spread. Beyond the dashed line, the model extrapolates."
    )
    train = context.train
    if train.store is None:
        verdict = decide("extrapolation", "warn", "the training set is not at hand")
        return Section(lead, (Note(f"Not computed: {train.why}."),), (verdict,), {"why": train.why})
    potential = context.calculator.potential
    test = fingerprints(potential, context.card, context.test)
    found = distances(test, fingerprints(potential, context.card, train.store))
    typical = found.train[np.isfinite(found.train)]
    if len(typical) == 0:
        note = Note("The training set has too few structures to tell what is far.")
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
        shown = "test and training set are one file"
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


def _copies(found: Distances, structure: NDArray[np.int64], limit: float) -> list[int]:
    """Rows of the test set all of whose atoms are those of training structures.

    Free atoms do not count: they stand in every set, to fix the zero of the energy.
    """
    return [
        int(row)
        for row, number in zip(*np.unique(structure, return_counts=True), strict=True)
        if number > 1 and found.test[structure == row].max() <= limit
    ]


def _errors(context: Context, structure: NDArray[np.int64]) -> Floats:
    """Force error (eV/Å) of the atoms whose fingerprints were taken."""
    predictions = context.predictions
    inside = np.isin(predictions.structure, np.unique(structure))
    return predictions.force_error[inside]


def _bins(
    context: Context, found: Distances, structure: NDArray[np.int64], limit: float
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
    structure: NDArray[np.int64],
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
    finish(axis, "error against distance", "distance", "force error (meV/Å)", legend=True)
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
    finish(axis, "how far atoms are", "distance", "% of the atoms", legend=True)
    return picture(
        figure,
        "error against distance to the training set",
        "Left: one dot a test atom. Right: distances of test atoms to the training set, beside "
        "those of one part of the training set to the rest. Dashed: 99% of the latter.",
    )
