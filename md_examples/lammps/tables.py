"""What the plots share: the tables that the inputs write, arguments, radial distribution."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from rich.console import Console

from tesseral.md_examples.common import run_example

Array = NDArray[np.float64]
Table = dict[str, Array]


def read_table(path: Path) -> Table:
    """Columns by the names in the last line that starts with ``#``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table, or one without rows.
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
    """How many times as dense as on average the atoms lie at a distance from an atom.

    Args:
        atoms: periodic; images count, so that the cutoff may exceed the cell.
        cutoff: Å.
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
    """The command line of a plot: a table in, a PNG out; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tesseral.md_examples.lammps.plot_{name}",
        description=f"Plot what in.{name} has written.",
    )
    parser.add_argument(
        "table", type=Path, nargs="?", default=Path(f"{name}.txt"), help="table (%(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, help="PNG; beside the table if not given")
    arguments = parser.parse_args(argv)
    output = arguments.output or arguments.table.with_suffix(".png")

    def run(console: Console) -> None:
        plot(arguments.table, output, console)
        console.print(f"wrote {output}", highlight=False)

    return run_example(run)
