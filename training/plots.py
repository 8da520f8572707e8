"""Plots of a training and of an evaluation, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from tesseral.files import write_whole

Array = NDArray[np.float64]

BLUE, ORANGE, GREY = "#2563a8", "#d9722b", "#7a7a7a"
MANY = 500  # points that hide each other in a picture


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure whole or not at all, in the format of the file's ending (default: PNG).

    Raises:
        OSError: the file cannot be written.
    """
    with write_whole(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:] or "png", dpi=150)


def plot_learning_curves(history: list[dict[str, Any]], path: str | Path) -> None:
    """Plot loss and validation errors against time.

    Args:
        history: entries with ``elapsed`` (s), ``loss`` and errors, as ``FitRun`` keeps them.
        path: PNG file to write.
    """
    minutes = np.array([entry["elapsed"] for entry in history]) / 60.0
    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    loss, energy, forces = figure.subplots(1, 3)
    _curve(loss, minutes, history, "train_loss", GREY, "training")
    _curve(loss, minutes, history, "loss", BLUE, "validation, averaged weights")
    _curve(energy, minutes, history, "train_energy_mae", GREY, "training")
    _curve(energy, minutes, history, "energy_per_atom_mae", ORANGE, "validation")
    _curve(forces, minutes, history, "train_forces_mae", GREY, "training")
    _curve(forces, minutes, history, "forces_mae", BLUE, "validation")
    for axes, title in (
        (loss, "loss"),
        (energy, "energy MAE, meV/atom"),
        (forces, "force MAE, meV/Å"),
    ):
        axes.set_title(title, fontsize=10)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("minutes")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def plot_parity(
    label: Array, prediction: Array, path: str | Path, *, name: str, unit: str, factor: float
) -> None:
    """Plot predictions against labels; many points are coloured by their density.

    Args:
        label: (n,) reference values.
        prediction: (n,) in the same unit.
        path: PNG file to write.
        name: name of the quantity, for the axes.
        unit: unit of the values.
        factor: factor from ``unit`` to the unit of the displayed errors (1000 or 1).
    """
    error = prediction - label
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    if len(label) < MANY:
        axes.plot(label, prediction, ".", color=BLUE, markersize=5)
    else:
        density = _density(label, prediction)
        order = np.argsort(density)
        points = axes.scatter(
            label[order],
            prediction[order],
            c=density[order],
            s=6,
            linewidths=0,
            cmap="viridis",
            norm=LogNorm(),
        )
        bar = figure.colorbar(points, ax=axes, shrink=0.8)
        bar.set_label("points nearby", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    low = float(min(label.min(), prediction.min()))
    high = float(max(label.max(), prediction.max()))
    margin = 0.04 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, linewidth=0.8, zorder=0)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.set_xlabel(f"reference {name}, {unit}")
    axes.set_ylabel(f"predicted {name}, {unit}")
    error_unit = f"m{unit}" if factor == 1e3 else unit
    axes.text(
        0.04,
        0.96,
        f"MAE {factor * np.abs(error).mean():.3g} {error_unit}\n"
        f"RMSE {factor * np.sqrt(np.square(error).mean()):.3g} {error_unit}\n"
        f"{len(error):,} values",
        transform=axes.transAxes,
        va="top",
        fontsize=9,
    )
    save_figure(figure, path)


def plot_uncertainty(expected: Array, true: Array, path: str | Path) -> None:
    """Plot true against expected force errors of atoms, with the means of groups of atoms.

    Args:
        expected: (N,) expected lengths of the force errors, eV/Å.
        true: (N,) true lengths; NaN without a label.
        path: PNG file to write.
    """
    known = np.isfinite(true) & (expected > 0) & (true > 0)
    expected, true = expected[known], true[known]
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    density = _density(np.log10(expected), np.log10(true))
    order = np.argsort(density)
    axes.scatter(expected[order], true[order], c=density[order], s=4, linewidths=0, cmap="viridis")
    groups = np.array_split(np.argsort(expected), min(20, len(expected)))
    means = np.array([(expected[group].mean(), true[group].mean()) for group in groups])
    axes.plot(*means.T, color=ORANGE, marker="o", markersize=4, label="means of groups of atoms")
    limits = float(expected.min()), float(expected.max())
    axes.plot(limits, limits, color=GREY, linewidth=0.8, label="perfect calibration")
    axes.set_xscale("log")
    axes.set_yscale("log")
    # Atoms of perfect crystals have no force by symmetry, and errors of rounding only.
    axes.set_ylim(bottom=max(float(true.min()), 1e-3 * float(np.median(true))) / 2)
    axes.set_xlabel("expected force error, eV/Å")
    axes.set_ylabel("true force error, eV/Å")
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _density(x: Array, y: Array, bins: int = 120) -> Array:
    """Number of points in the grid cell of each point, smoothed over neighbours.

    The grid runs along and across the diagonal, since errors are small compared with the values.
    """
    counts, first, second = np.histogram2d(x + y, y - x, bins=bins)
    padded = np.pad(counts, 1)
    smooth = sum(
        padded[1 + i : 1 + i + bins, 1 + j : 1 + j + bins] for i in (-1, 0, 1) for j in (-1, 0, 1)
    )
    i = np.clip(np.searchsorted(first, x + y, "right") - 1, 0, bins - 1)
    j = np.clip(np.searchsorted(second, y - x, "right") - 1, 0, bins - 1)
    result: Array = np.asarray(smooth)[i, j]
    return result


def _curve(
    axes: Axes, minutes: Array, history: list[dict[str, Any]], name: str, color: str, label: str
) -> None:
    """Plot one quantity of the history where it is known."""
    values = np.array([entry.get(name, np.nan) for entry in history], dtype=np.float64)
    if np.isfinite(values).any():
        axes.plot(minutes, values, color=color, label=label, marker=".", markersize=4)
