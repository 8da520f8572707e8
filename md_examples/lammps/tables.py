"""Tables written by the LAMMPS inputs, and their plots."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from rich.console import Console

COLORS = ("#1f6f8b", "#d1603d", "#5b8c5a", "#8a6fb0")

Array = NDArray[np.float64]
Table = dict[str, Array]


def read_table(path: Path) -> Table:
    """Columns by the names in the last line that starts with ``#``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not such a table, or has no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}; run the LAMMPS input first")
    lines = path.read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line.startswith("#")][-1:]
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if not names or not rows:
        raise ValueError(f"{path} is no table of these inputs, or holds no rows yet")
    columns = names[0].removeprefix("#").split()
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"{path} has rows that are not of {len(columns)} columns: {columns}")
    values = np.array(rows, dtype=np.float64)
    return dict(zip(columns, values.T, strict=True))


def radial_distribution(atoms: Atoms, cutoff: float = 8.0, bins: int = 100) -> tuple[Array, Array]:
    """Radial distribution function.

    Args:
        atoms: periodic structure; images count, so the cutoff may exceed the cell.
        cutoff: largest distance (Å).
        bins: number of shells.

    Returns:
        Distances (bins,) Å in the middle of the shells, and g (bins,).
    """
    counts, edges = np.histogram(neighbour_list("d", atoms, cutoff), bins, (0.0, cutoff))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    density = len(atoms) / atoms.get_volume()
    return 0.5 * (edges[1:] + edges[:-1]), counts / (len(atoms) * density * shells)


def plot_command(
    argv: Sequence[str] | None, name: str, plot: Callable[[Path, Path, Console], None]
) -> int:
    """Command line of a plot, from a table to a PNG file; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tesseral.md_examples.lammps.plot_{name}",
        description=f"Plot the table written by in.{name}.",
    )
    parser.add_argument(
        "table", type=Path, nargs="?", default=Path(f"{name}.txt"), help="table (%(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, help="PNG file. Default: next to the table")
    arguments = parser.parse_args(argv)
    output = arguments.output or arguments.table.with_suffix(".png")

    console = Console()
    try:
        plot(arguments.table, output, console)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(f"wrote {output}", highlight=False)
    return 0


def make_figure(width: float, height: float) -> Any:
    """An empty figure (inches); the global state of matplotlib is not changed."""
    from matplotlib.figure import Figure  # imported here because it is slow

    return Figure(figsize=(width, height), layout="constrained")


def finish_axes(axis: Any, xlabel: str, ylabel: str, *, legend: bool) -> None:
    """Common style of all plots."""
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        axis.legend(frameon=False, fontsize="small", loc="best")
