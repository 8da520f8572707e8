"""Plot of temperature, volume and density from in.melt_quench, and RDF of melt and glass.

python -m tesseral.md_examples.lammps.plot_melt_quench melt_quench.txt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import ase.io
from ase import Atoms
from rich.console import Console

from tesseral.md_examples.lammps.tables import (
    COLORS,
    finish_axes,
    make_figure,
    plot_command,
    radial_distribution,
    read_table,
)


def plot(path: Path, output: Path, console: Console) -> None:
    """Plot a table and the structures next to it."""
    table = read_table(path)
    structures = {
        "melt": path.with_name(f"{path.stem}-liquid.data"),
        "final structure": path.with_suffix(".data"),
    }
    figure = make_figure(6.5, 9.0)
    axes = figure.subplots(4, 1)
    columns = {
        "temperature_K": "temperature (K)",
        "volume_A3_per_atom": "volume (Å³/atom)",
        "density_g_cm3": "density (g/cm³)",
    }
    for axis, (column, label) in zip(axes[:3], columns.items(), strict=True):
        axis.plot(table["time_ps"], table[column], color=COLORS[0], linewidth=1.2)
        finish_axes(axis, "time (ps)", label, legend=False)
    for color, (name, file) in zip(COLORS[1:3], structures.items(), strict=True):
        axes[3].plot(*radial_distribution(read_structure(file)), color=color, label=name)
    finish_axes(axes[3], "distance (Å)", "RDF", legend=True)
    figure.savefig(output, dpi=130)


def read_structure(path: Path) -> Atoms:
    """A data file written by LAMMPS.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, which in.melt_quench writes at its end")
    atoms = ase.io.read(path, format="lammps-data", units="metal")
    assert isinstance(atoms, Atoms)
    return atoms


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return plot_command(argv, "melt_quench", plot)


if __name__ == "__main__":
    sys.exit(main())
