"""Tables and figure of the study of spline intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

from benchmarks.sheets import Sheet, cell  # noqa: E402
from benchmarks.universal.agreement import BARS, UNITS  # noqa: E402

TICKS = (10, 20, 30, 60, 100, 150, 300, 600)
FACET = (842_748, 624_380)  # arXiv 2509.08418, notebook of its authors: before and after


class Sizes(NamedTuple):
    """Numbers of weights; those of the radial part by layer."""

    original: int  # SevenNet
    other: int  # ours without the radial functions
    functions: list[int]  # radial functions of each layer
    kinks: int  # functions in addition to the intervals
    rank: int  # hidden functions mixed by the last matrix of a radial network

    def converted(self, intervals: int) -> int:
        """Number with splines for each function."""
        return self.other + (intervals + self.kinks) * sum(self.functions)

    def factored(self, intervals: int) -> int:
        """Number with splines for the hidden functions and the matrices that mix them."""
        splines = (intervals + self.kinks) * self.rank * len(self.functions)
        return self.other + splines + self.rank * sum(self.functions)


class Study(NamedTuple):
    """All measurements."""

    structures: int
    noise: dict[str, float]  # errors of SevenNet in float32, by quantity
    sizes: Sizes
    errors: list[dict[str, Any]]  # all layers: intervals, kinks, largest and mean errors
    dft: list[dict[str, Any]]  # intervals, errors on Si
    layers: list[dict[str, Any]]  # one layer: intervals, layer, errors


def error_sheet(study: Study) -> Sheet:
    """Table of the errors of the whole network."""
    sheet = Sheet(
        f"All layers with K intervals, {study.structures} structures, float64",
        ("K", *(f"{name}, {unit}" for name, unit in UNITS.items()))
        + ("mean", "mean", "mean", "forces without kinks", "Si energy, meV/atom")
        + ("forces, meV/Å", "stress, GPa"),
        "Largest differences from SevenNet-0 in float64, then their means; without double knots "
        "at 4.5 and 5 Å; MAE against DFT on the mlearn Si test set.",
    )
    smooth = {row["intervals"]: row for row in study.errors if not row["kinks"]}
    dft = {row["intervals"]: row for row in study.dft}
    for row in study.errors:
        if not row["kinks"]:
            continue
        intervals = row["intervals"]
        cells = [cell(row[name], 2) for name in UNITS]
        cells += [cell(row[f"{name}_mean"], 2) for name in UNITS]
        cells.append(cell(smooth[intervals]["forces"], 2))
        found = dft[intervals]
        cells += [f"{found[name]:.4g}" for name in UNITS]
        sheet.rows.append((str(intervals), *cells))
    return sheet


def layer_sheet(study: Study) -> Sheet:
    """Table of the largest force errors with one coarse layer."""
    numbers = sorted({row["layer"] for row in study.layers})
    sheet = Sheet(
        "One layer with K intervals, the others with the finest splines: forces, meV/Å",
        ("K", *(f"layer {number}" for number in numbers)),
        "Largest differences from SevenNet-0 in float64, the same structures.",
    )
    for intervals in sorted({row["intervals"] for row in study.layers}):
        found = {row["layer"]: row for row in study.layers if row["intervals"] == intervals}
        sheet.rows.append((str(intervals), *(cell(found[n]["forces"], 2) for n in numbers)))
    return sheet


def parameter_sheet(study: Study) -> Sheet:
    """Table of the numbers of weights compared with the original."""
    sizes = study.sizes
    sheet = Sheet(
        f"Weights; SevenNet-0 has {sizes.original:,}",
        ("K", "a spline for each function", "", "rank form", ""),
        f"Rank form: splines of the {sizes.rank} functions mixed by the last matrix of each radial "
        f"network, and this matrix. Facet's paper, after a new training: {FACET[0]:,} to "
        f"{FACET[1]:,} ({FACET[1] / FACET[0] - 1:+.0%}).",
    )
    for intervals in sorted({row["intervals"] for row in study.errors}):
        cells = [str(intervals)]
        for number in (sizes.converted(intervals), sizes.factored(intervals)):
            cells += [f"{number:,}", f"{number / sizes.original - 1:+.0%}"]
        sheet.rows.append(cells)
    return sheet


def plot_study(study: Study, path: Path) -> None:
    """Plot errors and weights against intervals."""
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    kinked = [row for row in study.errors if row["kinks"]]
    smooth = [row for row in study.errors if not row["kinks"]]
    intervals = [row["intervals"] for row in kinked]
    for number, (name, unit) in enumerate(UNITS.items()):
        colour = f"C{number}"
        values = [row[name] for row in kinked]
        left.loglog(intervals, values, "o-", color=colour, label=f"{name}, {unit}")
        without = [row[name] for row in smooth]
        left.loglog([row["intervals"] for row in smooth], without, ":", color=colour, alpha=0.7)
        left.axhline(BARS[name], color=colour, linestyle="--", linewidth=0.8)
    left.set(ylabel="largest difference from SevenNet-0", title="all layers")
    left.legend(title="dashed: bar; dotted: without kinks", fontsize="small")
    for layer in sorted({row["layer"] for row in study.layers}):
        rows = [row for row in study.layers if row["layer"] == layer]
        middle.loglog(
            [row["intervals"] for row in rows],
            [row["forces"] for row in rows],
            "o-",
            label=f"layer {layer}",
        )
    middle.axhline(BARS["forces"], color="k", linestyle="--", linewidth=0.8)
    middle.set(ylabel="forces, meV/Å", title="one layer coarse")
    middle.legend(fontsize="small")
    _plot_weights(right, study.sizes, intervals)
    for axes in (left, middle, right):
        axes.set_xlabel("spline intervals")
        axes.set_xscale("log")
        axes.set_xticks(TICKS, labels=[str(one) for one in TICKS])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(True, which="major", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)


def _plot_weights(axes: Axes, sizes: Sizes, intervals: Sequence[int]) -> None:
    """Plot the weights of both forms and of the original."""
    many = np.array(intervals)
    axes.plot(many, [sizes.converted(k) for k in intervals], "o-", label="a spline each")
    axes.plot(many, [sizes.factored(k) for k in intervals], "s-", label=f"rank {sizes.rank}")
    axes.axhline(sizes.original, color="k", linewidth=0.8, label="SevenNet-0")
    axes.axhline(FACET[1], color="k", linestyle=":", linewidth=0.8, label="Facet's paper")
    axes.set(title="weights")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.legend(fontsize="small")
