"""``train-potential md``."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console

from tesseral.calculators.simulations.config import MdConfig
from tesseral.commands.parser import Parser, add_fields, build, with_flags
from tesseral.process import keep_freed_memory

EPILOG = """\
The trajectory (.traj, ASE) and table (.csv) of each structure are in FOLDER/structures, with one
line per structure in FOLDER/summary.csv. After an interruption the same command resumes. A
model that knows its uncertainty stops a run at structures unlike its training set; these are in
NAME.unknown.extxyz. The exit status is 0 if all runs completed and 1 otherwise.
"""


def parser() -> Parser:
    """Options of ``md``."""
    made = Parser(
        usage="train-potential md STRUCTURE… [--model MODEL] [-o FOLDER] [options]",
        epilog=EPILOG,
    )
    add_fields(made, MdConfig, positional={"structures": "+"}, short={"output": "-o"})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Run molecular dynamics; returns the exit status."""
    from tesseral.calculators.simulations.runs import run_dynamics
    from tesseral.commands.relax import show_more
    from tesseral.commands.runs import Column, ready_on_screen, run_on_screen

    columns = (
        Column("energy_eV_atom", "E eV/atom", 4, "energy_error_eV_atom"),
        Column("temperature_K", "T K", 1, "temperature_error_K"),
        Column("pressure_GPa", "P GPa", 2, "pressure_error_GPa"),
        Column("volume_change_percent", "ΔV %", 2),
        Column("drift_meV_atom", "drift meV/atom", 3),
    )
    config = build(MdConfig, values)
    keep_freed_memory()
    ready_on_screen(config.model, config.structures, console)
    words = partial(with_flags, parser=parser())
    more = partial(show_more, console)
    return run_on_screen(partial(run_dynamics, config), columns, console, words, more)
