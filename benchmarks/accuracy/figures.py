"""Figures of errors against time, and of energies along a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.accuracy.curves import Curve
from benchmarks.plots import MARKERS, few

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402


def plot_curves(curves: Mapping[str, Curve], title: str, path: Path) -> None:
    """Validation errors of forces and energy against training time, on logarithmic axes."""
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for axes, quantity, unit in zip(
        panels, ("forces", "energy"), ("meV/Å", "meV/atom"), strict=True
    ):
        for number, (name, curve) in enumerate(curves.items()):
            axes.loglog(
                [point.seconds for point in curve],
                [getattr(point, quantity) for point in curve],
                marker=MARKERS[number],
                markersize=3.5,
                label=name,
            )
        axes.set(xlabel="s of training", ylabel=f"validation MAE of {quantity} ({unit})")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(plain))
            axis.set_minor_formatter(FuncFormatter(few))
        axes.grid(True, which="major", alpha=0.4)
        axes.grid(True, which="minor", alpha=0.12)
    panels[0].legend()
    _finish(figure, title, path)


def plot_profile(
    profiles: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]],
    label: str,
    title: str,
    path: Path,
) -> None:
    """Energy along a path from DFT and all programs, with the differences below.

    Args:
        profiles: coordinate, DFT energy and predicted energy in meV, by program.
        label: label of the coordinate.
        title: title of the figure.
        path: image to write.
    """
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7, 6), layout="constrained", sharex=True, height_ratios=(2, 1)
    )
    for number, (name, (where, dft, energy)) in enumerate(profiles.items()):
        if number == 0:
            above.plot(where, dft, "k-", linewidth=2, label="DFT")
        style = {"marker": MARKERS[number], "markersize": 3.5, "linewidth": 1}
        above.plot(where, energy, **style, label=name)
        below.plot(where, np.subtract(energy, dft), **style)
    above.set(ylabel="energy of the molecule (meV)")
    below.set(xlabel=label, ylabel="error (meV)")
    below.axhline(0, color="k", linewidth=0.8)
    for axes in (above, below):
        axes.grid(True, alpha=0.3)
    above.legend()
    _finish(figure, title, path)


def plain(value: float, _: int) -> str:
    """A number as text without a power of ten."""
    return f"{value:,g}"


def _finish(figure: Figure, title: str, path: Path) -> None:
    """Write the image."""
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)
