"""``train-potential relax``."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console

from tesseral.calculators.simulations.relaxation import RelaxConfig
from tesseral.commands.parser import Parser, add_fields, build, with_flags
from tesseral.process import keep_freed_memory

EPILOG = """\
The trajectory (.traj, ASE) and table (.csv) of each structure are in FOLDER/structures, with one
line per structure in FOLDER/summary.csv. After an interruption the same command resumes. The exit
status is 0 if all structures converged and 1 otherwise.
"""


def parser() -> Parser:
    """Options of ``relax``."""
    made = Parser(
        usage="train-potential relax STRUCTURE… [--model MODEL.safetensors] [-o FOLDER] [options]",
        epilog=EPILOG,
    )
    add_fields(made, RelaxConfig, positional={"structures": "+"}, short={"output": "-o"})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Relax structures; returns the exit status."""
    from tesseral.calculators.simulations.runs import relax_structures
    from tesseral.commands.runs import Column, run_on_screen

    columns = (
        Column("energy_eV_atom", "E eV/atom", 4),
        Column("max_force_eV_A", "F eV/Å", 4),
        Column("volume_change_percent", "ΔV %", 2),
        Column("pressure_GPa", "P GPa", 3),
    )
    config = build(RelaxConfig, values)
    keep_freed_memory()
    words = partial(with_flags, parser=parser())
    return run_on_screen(partial(relax_structures, config), columns, console, words)
