"""``train-potential relax``."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tesseral.calculators.simulations.relaxation import RelaxConfig
from tesseral.commands.parser import Parser, add_fields, build, with_flags
from tesseral.process import keep_freed_memory

EPILOG = """\
Every structure has its trajectory (.traj, ASE) and table (.csv) in FOLDER/structures, and a line in
FOLDER/summary.csv. After Ctrl-C, a kill or a power cut the same command resumes. The exit status is
1 where a structure failed or did not converge, 0 where all did.
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
    from tesseral.calculators.simulations.runs import relax_command

    keep_freed_memory()
    config = build(RelaxConfig, values)
    try:
        return relax_command(config, console, lambda text: with_flags(text, parser()))
    except KeyboardInterrupt as stop:
        reason = str(stop) or "stopped by Ctrl-C"
        raise KeyboardInterrupt(f"{reason}; the same command resumes") from None
