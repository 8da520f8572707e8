"""Section: force errors against the size of the force."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from tesseral.report.content import Picture, Section, number, table
from tesseral.report.context import Context
from tesseral.report.figures import (
    GREY,
    SHOWN_POINTS,
    color_of,
    dot_size,
    finish,
    panels,
    picture,
    plain_ticks,
)
from tesseral.report.verdicts import judge

Floats = NDArray[np.float64]


def force_size(context: Context) -> Section:
    """Force errors against the size of the force."""
    found = context.predictions
    size = np.linalg.norm(found.forces_label, axis=1)
    known = np.isfinite(size)
    if not known.any():
        return Section("The data have no forces.")
    size, off = size[known], found.force_error[known]
    symbols = np.array(chemical_symbols)[found.numbers[known]]
    edges = _bins(size)
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = off[(size >= low) & (size < high)]
        if len(inside) == 0:
            continue
        quantiles = np.quantile(inside, (0.5, 0.9, 1.0))
        middle = float(np.sqrt(max(low, 1e-3) * high))
        rows.append((float(low), float(high), middle, len(inside), *(float(q) for q in quantiles)))
    largest = size >= np.quantile(size, 0.9)
    relative = 100 * float(np.median(off[largest] / np.maximum(size[largest], 1e-12)))
    return Section(
        lead="Error of the force on each atom against the size of the force. A good potential "
        "stays well below the dashed line, where the error is as large as the force.",
        blocks=(
            _size_picture(size, off, symbols, rows),
            table(
                ("|F| from (eV/Å)", "to", "atoms", "median error (meV/Å)", "90%", "largest"),
                [
                    (number(r[0]), number(r[1]), f"{r[3]}", *(number(1000 * q) for q in r[4:]))
                    for r in rows
                ],
            ),
        ),
        verdicts=(judge("large-forces", relative),),
        numbers={
            "bins": [
                dict(
                    zip(("low", "high", "middle", "atoms", "median", "q90", "max"), r, strict=True)
                )
                for r in rows
            ],
            "median_relative_error_of_largest_tenth_percent": relative,
        },
    )


def _bins(size: Floats) -> Floats:
    """Bin edges evenly spaced in the logarithm."""
    top = float(size.max())
    low = max(0.02, min(0.1, 0.1 * top))
    edges = np.geomspace(low, max(top * 1.0001, 2 * low), 8)
    return np.concatenate([[0.0], edges])


def _size_picture(size: Floats, off: Floats, symbols: Any, rows: list[Any]) -> Picture:
    figure, axes = panels(1, 1, width=6.6, height=3.6)
    axis = axes[0, 0]
    # Atoms at sites of perfect crystals, whose forces are rounding errors, would fill the axes.
    rows = [row for row in rows if row[0] > 0] or rows
    seen = np.flatnonzero(size >= rows[0][0])
    shown = np.random.default_rng(0).permutation(seen)[:SHOWN_POINTS]
    names = sorted(set(symbols.tolist()))
    for symbol, color in color_of(names).items():
        mine = shown[symbols[shown] == symbol]
        points = np.maximum(size[mine], 1e-3), np.maximum(1000 * off[mine], 0.1)
        axis.plot(*points, "o", ms=dot_size(len(size)), alpha=0.4, mew=0, color=color, label=symbol)
    middles = [row[2] for row in rows]
    axis.plot(
        middles,
        [max(1000 * row[4], 0.1) for row in rows],
        "-o",
        ms=4,
        color="black",
        label="median",
    )
    axis.plot(
        middles,
        [max(1000 * row[5], 0.1) for row in rows],
        ":",
        color="black",
        label="90% are below",
    )
    ends = np.array([max(1e-3, size[seen].min()), size.max()])
    axis.plot(ends, 1000 * ends, "--", color=GREY, linewidth=0.9, label="error = force")
    axis.set(xscale="log", yscale="log")
    plain_ticks(axis.xaxis)
    plain_ticks(axis.yaxis)
    finish(axis, "", "size of the reference force (eV/Å)", "error of the force (meV/Å)")
    axis.legend(
        frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.6
    )
    rest = len(size) - len(seen)
    small = f" {rest} atoms with smaller forces are not shown." if rest else ""
    return picture(
        figure, "force error against force", f"One dot per atom; lines: quantiles.{small}"
    )
