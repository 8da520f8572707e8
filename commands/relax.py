"""``train-potential relax``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from tesseral.calculators.simulations.config import RelaxConfig
from tesseral.commands.parser import Parser, add_fields, build, with_flags
from tesseral.process import keep_freed_memory
from tesseral.screen import print_table

NAMED = 5  # names shown of structures that have something in common

EPILOG = """\
The trajectory (.traj, ASE) and table (.csv) of each structure are in FOLDER/structures, with one
line per structure in FOLDER/summary.csv. After an interruption the same command resumes. The exit
status is 0 if all structures converged and 1 otherwise.
"""


def parser() -> Parser:
    """Options of ``relax``."""
    made = Parser(
        usage="train-potential relax STRUCTURE… [--model MODEL] [-o FOLDER] [options]",
        epilog=EPILOG,
    )
    add_fields(made, RelaxConfig, positional={"structures": "+"}, short={"output": "-o"})
    made.elsewhere = {"fixed_cell": "there is no --fixed-cell; use --cell fixed"}
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Relax structures; returns the exit status."""
    from tesseral.calculators.simulations.runs import relax_structures
    from tesseral.commands.runs import Column, ready_on_screen, run_on_screen

    columns = (
        Column("energy_eV_atom", "E eV/atom", 4),
        Column("max_force_eV_A", "F eV/Å", 4),
        Column("volume_change_percent", "ΔV %", 2),
        Column("pressure_GPa", "P GPa", 3),
    )
    config = build(RelaxConfig, values)
    keep_freed_memory()
    ready_on_screen(config.model, config.structures, console)
    words = partial(with_flags, parser=parser())
    more = partial(show_more, console)
    return run_on_screen(partial(relax_structures, config), columns, console, words, more)


def show_more(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Show the cells, and warn of structures that the model does not know."""
    show_cells(console, rows)
    for row in rows:
        if row.get("uncertain"):
            text = f"warning: {row['name']}: {row['uncertain']}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_cells(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Show the lattice constants, and which cells were kept and why."""
    from tesseral.calculators.simulations.relaxation import CELL_COLUMNS

    lines = []
    for row in rows:
        if row["a_A"]:
            lengths = [f"{float(row[name]):.4f}" for name in CELL_COLUMNS[:3]]
            angles = [f"{float(row[name]):.2f}" for name in CELL_COLUMNS[3:]]
            lines.append([row["name"], *lengths, *angles, row.get("space_group") or "–"])
    if lines:
        heads = ("structure", "a Å", "b Å", "c Å", "α °", "β °", "γ °", "space group")
        print_table(console, heads, lines)
    kept: dict[str, list[str]] = {}
    for row in rows:
        if row.get("kept_cell"):
            kept.setdefault(row["kept_cell"], []).append(row["name"])
    for reason, names in kept.items():
        who = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" * (len(names) > NAMED))
        text = f"{who}: the cell was kept ({reason})"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if kept:
        console.print("--cell in-plane or --cell free relaxes it", highlight=False)
