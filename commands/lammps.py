"""``train-potential lammps build`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tesseral.commands.parser import Parser
from tesseral.screen import print_written


def parser() -> Parser:
    """Options of ``lammps`` and of its subcommands."""
    made = Parser(usage="train-potential lammps build | verify MODEL.pt")
    builder = Parser(usage="train-potential lammps build [-o FOLDER]")
    builder.description = "Compile the pair style for the installed LAMMPS (about a minute)."
    builder.add_argument(
        "-o",
        "--output",
        type=str | None,
        help="output folder. Default: the folder that lmp searches",
    )
    verifier = Parser(usage="train-potential lammps verify MODEL.pt [--ranks 1,2,4]")
    verifier.description = "Compare LAMMPS with Python; the exit status is 1 if they differ."
    verifier.add_argument("model", type=str, help="exported model (train-potential export)")
    verifier.add_argument(
        "--ranks",
        type=str,
        default="1,2,4",
        help="numbers of MPI processes to test, comma-separated",
    )
    made.below = {"build": builder, "verify": verifier}
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Build the pair style, or compare it with Python; returns 1 if they differ."""
    from tesseral.deploy.lammps import plugin_folder
    from tesseral.deploy.lammps.build import PLUGIN, build_plugin
    from tesseral.deploy.lammps.verify import table, verify

    def say(text: str) -> None:
        console.print(text, style="dim", highlight=False, soft_wrap=True)

    command = values["command"]
    values = values[command]
    if command == "build":
        path = build_plugin(values["output"], say)
        print_written(console, path)
        if values["output"]:
            say(f"lmp finds it with LAMMPS_PLUGIN_PATH={path.parent}")
        return 0
    numbers = values["ranks"].split(",")
    if not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise ValueError(f"--ranks is {values['ranks']!r}; give numbers, like 1,2,4")
    if not Path(plugin_folder(), PLUGIN).exists():
        say("the plugin is not built yet")
        build_plugin(None, say)
    differences = verify(values["model"], ranks=[int(number) for number in numbers], say=say)
    console.print(table(differences))
    failed = sum(not one.passed for one in differences)
    console.print(f"{len(differences) - failed} of {len(differences)} agree")
    return int(failed > 0)
