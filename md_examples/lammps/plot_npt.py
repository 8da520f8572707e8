"""Temperature, pressure, volume and energy of in.npt against time, and their means.

python -m tesseral.md_examples.lammps.plot_npt npt.txt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tesseral.md_examples.common import plot_panels
from tesseral.md_examples.lammps.tables import plot_command, read_table
from tesseral.screen import print_table


def plot(path: Path, output: Path, console: Console) -> None:
    """Plot a table, and print the means of its second half, which the start has not shaped."""
    table = read_table(path)
    panels = {
        "temperature (K)": {"T": table["temperature_K"]},
        "pressure (GPa)": {"P": table["pressure_GPa"]},
        "volume (Å³/atom)": {"V": table["volume_A3_per_atom"]},
        "energy (eV/atom)": {"E": table["energy_eV_per_atom"]},
    }
    plot_panels(output, table["time_ps"], "time (ps)", panels)
    late = slice(len(table["time_ps"]) // 2, None)
    rows = [
        (label, f"{values[late].mean():.4f}", f"{values[late].std():.4f}")
        for label, lines in panels.items()
        for values in lines.values()
    ]
    print_table(console, ("second half", "mean", "fluctuation"), rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return plot_command(argv, "npt", plot)


if __name__ == "__main__":
    sys.exit(main())
