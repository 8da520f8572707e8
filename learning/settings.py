"""What the commands of this folder have in common: settings of a folder, shipped files, times."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from tesseral import configs
from tesseral.calculators.simulations.structures import fingerprint, read_jobs
from tesseral.deploy.universal import model_path
from tesseral.files import json_text, write_json


def with_content(name: str, content: str) -> str:
    """A file in the settings of a run, which must not change even if its name does not."""
    return f"{name} with content {content}"


def model_with_content(name: str) -> str:
    """A model in the settings of a run: a file, or a name of the catalogue."""
    return with_content(name, hashlib.sha256(model_path(name).read_bytes()).hexdigest())


def structures_with_content(files: Sequence[str]) -> list[str]:
    """Structure files in the settings of a run, as `read_jobs` reads them."""
    read: dict[str, list[str]] = {file: [] for file in files}
    for job in read_jobs(files) if files else ():
        read[job.file].append(fingerprint(job))
    return [
        with_content(file, hashlib.sha256(" ".join(found).encode()).hexdigest())
        for file, found in read.items()
    ]


def keep_settings(path: Path, settings: Mapping[str, Any], begun: bool = True) -> None:
    """Write the settings of a run into its folder, or compare them with those that are there.

    Args:
        path: the file, named after the command, in the folder of the run.
        settings: all that determines the results, by the name of the argument.
        begun: False if the folder has no results yet, so that the settings may still change.

    Raises:
        ValueError: the folder has other files, or was made with other settings.
    """
    now = json.loads(json_text(dict(settings)))
    if path.exists() and not begun:
        write_json(path, now, indent=1)
        return
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
        if not _same(before.get(name), now.get(name)):
            raise ValueError(
                f"{path.parent} was made with `{name}` {before.get(name)}, not {now.get(name)}; "
                "give another folder as `output`, or the same options as before"
            )


def _same(before: Any, now: Any) -> bool:
    """Whether two values of a setting are equal.

    Files may have been moved if their names and contents are the same. Older folders have the paths
    of files only.
    """
    texts = json.dumps(before), json.dumps(now)
    known, given = (re.sub(r'"[^"]*/([^"/]+ with content )', r'"\1', text) for text in texts)
    return known == given or texts[0] == re.sub(" with content [0-9a-f]+", "", texts[1])


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
