"""Plots of the time of a step against the number of atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

MARKERS = "osD^vP*Xh<>d"

Curves = Mapping[str, Sequence[tuple[int, float]]]  # by name: numbers of atoms, seconds per step


def plot_scaling(curves: Curves, title: str, path: Path) -> None:
    """Two panels: ms per step with a line of slope 1, and µs per atom and step.

    Args:
        curves: points of each system.
        title: title of the figure.
        path: image to write.
    """
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return
    sizes = sorted({atoms for points in curves.values() for atoms, _ in points})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    for number, (name, points) in enumerate(curves.items()):
        atoms, seconds = np.array(sorted(points), dtype=float).T
        style = {
            "marker": MARKERS[number % len(MARKERS)],
            "color": f"C{number % 10}",
            "linestyle": "-" if number < 10 else "--",
            "markersize": 5,
            "label": name,
        }
        left.loglog(atoms, 1e3 * seconds, **style)
        right.loglog(atoms, 1e6 * seconds / atoms, **style)
    _guide(left, curves)
    left.set(xlabel="atoms", ylabel="ms per step")
    right.set(xlabel="atoms", ylabel="µs per atom and step")
    for axes in (left, right):
        axes.grid(True, which="major", alpha=0.4)
        axes.grid(True, which="minor", alpha=0.12)
        axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes], rotation=30)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    right.yaxis.set_minor_formatter(FuncFormatter(few))
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)


def few(value: float, _: int) -> str:
    """Labels between powers of ten, only at 2 and 5."""
    return f"{value:,g}" if f"{value:e}"[0] in "25" else ""


def _guide(axes: Axes, curves: Curves) -> None:
    """A line of slope 1 below all points."""
    points = [point for several in curves.values() for point in several]
    ends = np.array([min(atoms for atoms, _ in points), max(atoms for atoms, _ in points)])
    lowest = min(seconds / atoms for atoms, seconds in points)
    axes.loglog(ends, 1e3 * 0.7 * lowest * ends, "k:", linewidth=1, label="slope 1")
