"""``train-potential neb``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from tesseral.calculators.simulations.config import NebConfig
from tesseral.commands.parser import Parser, add_fields, build, with_flags
from tesseral.process import keep_freed_memory

EPILOG = """\
Both ends are relaxed, then the path between them. FOLDER/structures has the path (.extxyz), its
energies (.csv, .json) and a picture (.png). After an interruption the same command resumes. The
exit status is 0 if the path converged and 1 otherwise.

example:
  train-potential neb start.cif end.cif --model model.safetensors -o hop
"""


def parser() -> Parser:
    """Options of ``neb``."""
    made = Parser(
        usage="train-potential neb START END [--model MODEL] [-o FOLDER] [options]", epilog=EPILOG
    )
    positional: dict[str, str | None] = {"start": None, "end": None}
    add_fields(made, NebConfig, positional=positional, short={"output": "-o"})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Find the path between two structures; returns the exit status."""
    from tesseral.calculators.simulations.runs import compute_barriers
    from tesseral.commands.runs import Column, ready_on_screen, run_on_screen

    columns = (
        Column("forward_barrier_eV", "forward eV", 3),
        Column("backward_barrier_eV", "backward eV", 3),
        Column("reaction_energy_eV", "reaction eV", 3),
        Column("path_length_A", "length Å", 2),
        Column("max_force_eV_A", "F eV/Å", 3),
    )
    config = build(NebConfig, values)
    keep_freed_memory()
    ready_on_screen(config.model, config.structures, console)
    words = partial(with_flags, parser=parser())
    more = partial(show_notes, console)
    return run_on_screen(partial(compute_barriers, config), columns, console, words, more)


def show_notes(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Show the remarks about each path."""
    for row in rows:
        if row["note"]:
            text = f"note: {row['name']}: {row['note']}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
