"""Plot of temperature, pressure, volume and energy from in.npt, and their means.

python -m tesseral.md_examples.lammps.plot_npt npt.txt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tesseral.md_examples.lammps.tables import (
    COLORS,
    finish_axes,
    make_figure,
    plot_command,
    read_table,
)
from tesseral.screen import print_table


def plot(path: Path, output: Path, console: Console) -> None:
    """Plot a table, and print the means of its second half, after equilibration."""
    table = read_table(path)
    columns = {
        "temperature (K)": table["temperature_K"],
        "pressure (GPa)": table["pressure_GPa"],
        "volume (Å³/atom)": table["volume_A3_per_atom"],
        "energy (eV/atom)": table["energy_eV_per_atom"],
    }
    figure = make_figure(6.5, 8.6)
    axes = figure.subplots(len(columns), 1, sharex=True)
    for axis, (label, values) in zip(axes, columns.items(), strict=True):
        axis.plot(table["time_ps"], values, color=COLORS[0], linewidth=1.2)
        finish_axes(axis, "", label, legend=False)
    axes[-1].set_xlabel("time (ps)")
    figure.savefig(output, dpi=130)
    late = slice(len(table["time_ps"]) // 2, None)
    rows = [
        (label, f"{values[late].mean():.4f}", f"{values[late].std():.4f}")
        for label, values in columns.items()
    ]
    print_table(console, ("second half", "mean", "fluctuation"), rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return plot_command(argv, "npt", plot)


if __name__ == "__main__":
    sys.exit(main())
