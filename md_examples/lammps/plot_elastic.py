"""Plot of stress against strain from in.elastic with fitted lines, and the matrix of slopes.

python -m tesseral.md_examples.lammps.plot_elastic elastic.txt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from tesseral.calculators.properties.elastic import cubic_constants
from tesseral.md_examples.lammps.tables import (
    COLORS,
    Array,
    Table,
    finish_axes,
    make_figure,
    plot_command,
    read_table,
)
from tesseral.screen import print_table

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
OTHERS = ("#b0a14f", "#8c8c8c")


def stiffness(table: Table) -> Array:
    """Slopes (6, 6) GPa by least squares through zero: row stress, column strain, not symmetrised.

    Raises:
        ValueError: a direction has no strains.
    """
    slopes = np.empty((6, 6))
    for column in range(6):
        rows = table["direction"] == column + 1
        if not rows.any():
            raise ValueError(f"the table has no strains {VOIGT[column]}; run in.elastic to its end")
        strain = table["strain"][rows]
        for row, name in enumerate(VOIGT):
            slopes[row, column] = table[f"{name}_GPa"][rows] @ strain / (strain @ strain)
    return slopes


def plot(path: Path, output: Path, console: Console) -> None:
    """Plot a table; print the matrix and the averages for a cubic crystal."""
    table = read_table(path)
    slopes = stiffness(table)
    figure = make_figure(9.0, 5.5)
    for column, axis in enumerate(figure.subplots(2, 3).flat):
        rows = table["direction"] == column + 1
        strain = table["strain"][rows]
        for row, color in enumerate((*COLORS, *OTHERS)):
            stress = table[f"{VOIGT[row]}_GPa"][rows]
            axis.plot(strain, stress, "o", color=color, markersize=3)
            axis.plot(strain, slopes[row, column] * strain, color=color, label=VOIGT[row])
        finish_axes(axis, f"strain {VOIGT[column]}", "stress (GPa)", legend=column == 3)
    figure.savefig(output, dpi=130)
    lines = [(name, *(f"{c:.2f}" for c in row)) for name, row in zip(VOIGT, slopes, strict=True)]
    print_table(console, ("C (GPa)", *VOIGT), lines)
    cubic = cubic_constants(0.5 * (slopes + slopes.T))
    console.print("  ".join(f"{name} {value:.2f}" for name, value in cubic.items()), "GPa if cubic")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return plot_command(argv, "elastic", plot)


if __name__ == "__main__":
    sys.exit(main())
