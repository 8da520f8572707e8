"""Results of finished trainings, and the list of trainings to run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.programs import Program
from benchmarks.accuracy.programs.ours import Taught
from benchmarks.accuracy.recipes import OURS, PEERS, Recipe
from benchmarks.accuracy.train import Setting
from benchmarks.sheets import save
from tesseral.files import write_whole

RESULT = "result.json"

Job = tuple[Recipe, Setting, Program]


def folder_of(output: Path, recipe: Recipe, program: str, seed: int | str = 0) -> Path:
    """Folder of the training of a program on a set; a further seed has its own."""
    return output / recipe.name / (f"{program}_seed_{seed}" if seed else program)


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Save a result, either completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(folder / RESULT) as temporary:
        save(temporary, result)


def read_result(folder: Path) -> dict[str, Any] | None:
    """An earlier result."""
    path = folder / RESULT
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def wanted(recipe: Recipe, setting: Setting, program: Program) -> dict[str, Any]:
    """Settings that a result must share with a run that reuses it."""
    ours = not program.counts_epochs
    return {
        "minutes": setting.minutes,
        "threads": setting.threads,
        "options": list(setting.extra) if ours else [],
        "config": recipe.config if ours else None,
        **({"command": "teach"} if isinstance(program, Taught) else {}),
        "settings": _plain(recipe.fit if ours else recipe.peers.get(program.name, {})),
        "train": recipe.train,
        "validation": recipe.validation,
        "structures": recipe.structures,
        "groups": _plain(recipe.groups),
        "seed": recipe.seed,
        **({"training seed": setting.seed, "clock": setting.clock} if ours else {}),
    }


def find_results(
    output: Path,
    recipes: Sequence[tuple[Recipe, Setting]],
    programs: Sequence[Program],
    *,
    again: bool,
) -> tuple[list[Job], list[Job]]:
    """The trainings with results, and those to run.

    Args:
        output: folder of all results.
        recipes: requested sets, with the settings of each and each seed.
        programs: requested programs.
        again: repeat all trainings.

    Raises:
        ValueError: an earlier result has other settings.
    """
    done: list[Job] = []
    missing: list[Job] = []
    for recipe, setting in recipes:
        for program in programs:
            if program.counts_epochs and setting.seed:  # the others have one seed
                continue
            folder = folder_of(output, recipe, program.name, setting.seed)
            earlier = None if again else read_result(folder)
            if earlier is None:
                missing.append((recipe, setting, program))
                continue
            for name, value in wanted(recipe, setting, program).items():
                found = earlier["wanted"].get(name)
                if found != value:
                    raise ValueError(
                        f"{folder / RESULT} is the result of a training with {name} {found}, "
                        f"not {value}; add --again to repeat it, or choose another --output"
                    )
            done.append((recipe, setting, program))
    return done, missing


def gather(output: Path, recipes: Iterable[Recipe]) -> list[dict[str, Any]]:
    """All results in a folder, by set in the order of the recipes, with ours first, by seed."""
    results = []
    for recipe in recipes:
        first = folder_of(output, recipe, OURS)
        others = first.parent.glob(folder_of(output, recipe, OURS, "*").name)
        ours = sorted(others, key=lambda folder: int(folder.name.rpartition("_")[2]))
        peers = [folder_of(output, recipe, program) for program in PEERS]
        found = (read_result(folder) for folder in (first, *ours, *peers))
        results += [result for result in found if result is not None]
    return results


def _plain(value: Any) -> Any:
    """A value after conversion to JSON and back."""
    return json.loads(json.dumps(value))
