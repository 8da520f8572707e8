"""What the commands of this folder have in common: settings of a folder, shipped files, times."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from tesseral import configs
from tesseral.files import json_text, write_json


def keep_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run into its folder, or compare them with those that are there.

    Args:
        path: the file, named after the command, in the folder of the run.
        settings: all that determines the results, by the name of the argument.

    Raises:
        ValueError: the folder has other files, or was made with other settings.
    """
    now = json.loads(json_text(dict(settings)))
    if not path.exists():
        if any(not each.name.startswith(".") for each in path.parent.iterdir()):
            raise ValueError(
                f"{path.parent} exists and holds no results of {path.stem}; give a new folder as "
                "`output`"
            )
        write_json(path, now, indent=1)
        return
    try:
        before = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise ValueError(
            f"{path} is damaged; give another folder as `output`, or remove this file if the "
            "options are the same as before"
        ) from None
    for name in {**before, **now}:  # what older folders lack was None
        if now.get(name) != before.get(name):
            raise ValueError(
                f"{path.parent} was made with `{name}` {before.get(name)}, not {now.get(name)}; "
                "give another folder as `output`, or the same options as before"
            )


def shipped(name: str) -> dict[str, Any]:
    """Contents of a configuration file of the package."""
    content: dict[str, Any] = yaml.safe_load(Path(configs.__path__[0], name).read_text("utf-8"))
    return content


def seconds_of_a_step(
    atoms: Atoms, calculator: BaseCalculator, clock: Callable[[], float]
) -> float:
    """Time of energies and forces of a structure, the least of five."""
    trial = atoms.copy()
    trial.calc = calculator
    spent = []
    for number in range(6):
        trial.rattle(0.01, seed=number)
        begin = clock()
        trial.get_forces()
        spent.append(clock() - begin)
    return min(spent[1:])
