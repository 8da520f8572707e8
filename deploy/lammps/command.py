"""What ``train-potential lammps`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tesseral.deploy.lammps import plugin_folder
from tesseral.deploy.lammps.build import PLUGIN, build_plugin
from tesseral.deploy.lammps.verify import table, verify


def lammps_command(command: str, values: dict[str, Any], console: Console) -> int:
    """Build the pair style, or compare it with Python.

    Args:
        command: ``build`` or ``verify``.
        values: of its options.
        console: shows what is done.

    Returns:
        The exit status: 1 where LAMMPS and Python differ.

    Raises:
        FileNotFoundError: no such model.
        ValueError: no LAMMPS, no compiler, or numbers of processes that are none.
    """

    def say(text: str) -> None:
        console.print(text, style="dim", highlight=False, soft_wrap=True)

    if command == "build":
        path = build_plugin(values["output"], say)
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
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
