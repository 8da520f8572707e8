"""``train-potential properties``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from tesseral.calculators.simulations.config import PropertiesConfig
from tesseral.commands.parser import Parser, add_fields, build, with_flags
from tesseral.process import keep_freed_memory
from tesseral.screen import print_table

EPILOG = """\
Each structure is relaxed first. FOLDER/structures has the relaxed structure (.extxyz, .cif), and
for each property a JSON file with all numbers and a picture; phonons also give phonopy.yaml and
FORCE_SETS. FOLDER/summary.csv has a line per structure. After an interruption the same command
resumes. The exit status is 0 if everything was computed and 1 otherwise.

example:
  train-potential properties si.cif --model model.safetensors --compute eos
"""


def parser() -> Parser:
    """Options of ``properties``."""
    made = Parser(
        usage="train-potential properties STRUCTURE… [--model MODEL] [options]",
        epilog=EPILOG,
    )
    add_fields(made, PropertiesConfig, positional={"structures": "+"}, short={"output": "-o"})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Compute properties of structures; returns the exit status."""
    from tesseral.calculators.simulations.properties import PROPERTIES
    from tesseral.calculators.simulations.runs import compute_properties
    from tesseral.commands.relax import show_cells
    from tesseral.commands.runs import Column, ready_on_screen, run_on_screen

    columns = (
        Column("energy_eV_atom", "E eV/atom", 4),
        Column("max_force_eV_A", "F eV/Å", 4),
    )
    config = build(PropertiesConfig, values)
    keep_freed_memory()

    def more(rows: Sequence[Mapping[str, str]]) -> None:
        show_cells(console, rows)
        for name in PROPERTIES:
            _show_property(console, name, PROPERTIES[name].columns, rows)

    ready_on_screen(config.model, config.structures, console)
    words = partial(with_flags, parser=parser())
    return run_on_screen(partial(compute_properties, config), columns, console, words, more)


def _show_property(
    console: Console,
    name: str,
    columns: Mapping[str, tuple[str, int]],
    rows: Sequence[Mapping[str, str]],
) -> None:
    """Show the most important numbers of a property."""
    lines = []
    for row in rows:
        if any(row[column] for column in columns):
            numbers = [
                f"{round(float(row[column]), decimals) + 0.0:.{decimals}f}" if row[column] else "–"
                for column, (_, decimals) in columns.items()
            ]
            lines.append([row["name"], *numbers])
    if lines:
        print_table(console, (name, *(title for title, _ in columns.values())), lines)
