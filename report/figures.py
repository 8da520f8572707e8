"""Style of the figures of a report, and their conversion to images in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tesseral.report.content import Picture
from tesseral.training import plots

BLUE, ORANGE, GREY = plots.BLUE, plots.ORANGE, plots.GREY
GREEN, PURPLE, RED, TEAL = "#4c8c5a", "#7d62a8", "#b3362b", "#2b8a8a"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, TEAL, "#a8823a", "#c2527f", GREY)
LIGHT = "#e6e6e6"
SHOWN_POINTS = 12_000  # points of a scatter plot
PIXELS = 101  # CSS pixels per inch of a figure; 9.2 inches fill the page width
SETTINGS: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def panels(rows: int, columns: int, width: float = 9.2, height: float = 3.1) -> tuple[Any, Any]:
    """A figure (inches) and its axes as an array (rows, columns)."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def finish(axes: Axes, title: str, xlabel: str, ylabel: str, *, legend: bool = False) -> None:
    """Add labels and a light grid, and remove the frame on top and right."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, handletextpad=0.4)


def picture(figure: Figure, alt: str, caption: str) -> Picture:
    """A figure as a PNG in a data URI."""
    file = io.BytesIO()
    with rc_context(SETTINGS):
        figure.savefig(file, format="png", dpi=130)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    width = round(PIXELS * float(figure.get_figwidth()))
    return Picture(f"data:image/png;base64,{text}", alt, caption, width)


def plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis with numbers such as 0.05, 0.1, 0.2 instead of powers."""
    low, high = sorted(axis.get_view_interval())
    wide = high > 1000 * max(low, 1e-300)
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def dot_size(number: int) -> float:
    """Marker size of a scatter plot, in points."""
    return 4.0 if number < 500 else 2.8 if number < 4000 else 1.8


def color_of(items: Sequence[str]) -> dict[str, str]:
    """A colour for each item; they repeat after eight."""
    return {item: COLORS[i % len(COLORS)] for i, item in enumerate(items)}
