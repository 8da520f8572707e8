"""Our own training with the user's command."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch
import yaml

from benchmarks.accuracy.curves import Curve, Point
from benchmarks.accuracy.process import read_stamped
from benchmarks.accuracy.programs import LOG, Task, merge
from benchmarks.accuracy.recipes import OURS
from benchmarks.peers.training import our_program
from tesseral.learning.teach import LABELLING, SETTINGS
from tesseral.training.duration import parse_duration

MODEL, TAUGHT = "model.safetensors", "taught"
STEPS = re.compile(r"([\d,]+) steps an epoch")


def validations(folder: Path, steps: int | None, start: float = 0.0) -> Curve:
    """Validations in the last checkpoint of a training.

    Args:
        folder: folder of its checkpoints.
        steps: number of steps of an epoch, if it is known.
        start: seconds before its first step.
    """
    checkpoint = folder / "last.ckpt"
    if not checkpoint.exists():
        return []
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return [
        Point(
            start + entry["elapsed"],
            entry["step"] / steps if steps else 0.0,
            entry["energy_per_atom_mae"],
            entry["forces_mae"],
        )
        for entry in content["callbacks"]["FitRun"]["history"]
    ]


class Ours:
    """``train-potential fit`` with the defaults of the package."""

    name = OURS
    calculator = "tesseral"
    python = sys.executable
    counts_epochs = False

    def command(self, task: Task) -> list[str]:
        """Command; the stores are made by ``imports`` beforehand."""
        settings = merge(
            task.recipe.fit,
            {
                "data": {
                    "train": str(task.folder / "fit.h5"),
                    "validation": str(task.folder / "validation.h5"),
                    "seed": task.seed,
                },
                "output": str(task.folder / MODEL),
                "seed": task.seed,
                "trainer": {
                    "max_time": f"{task.seconds:.0f}s",
                    "clock": task.clock,
                    "enable_progress_bar": False,
                },
            },
        )
        if task.files.isolated:
            settings["data"]["isolated_energies"] = task.files.isolated
        path = task.folder / "fit.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        start = [] if task.recipe.config is None else ["--config", task.recipe.config]
        return [our_program(), "fit", *start, "--config", str(path), *task.extra]

    def imports(self, task: Task) -> list[list[str]]:
        """Commands that make the stores of the structures."""
        return [
            [our_program(), "data", "import", str(source), "-o", str(store), "--overwrite"]
            for source, store in (
                (task.files.fit, task.folder / "fit.h5"),
                (task.files.validation, task.folder / "validation.h5"),
            )
        ]

    def begins(self, line: str) -> bool:
        """Header of the table of validations."""
        return line.split()[:3] == ["time", "done", "step"]

    def ends(self, line: str) -> bool:
        """Never; no long work follows the training."""
        return False

    def curve(self, folder: Path) -> Curve:
        """Validations in the last checkpoint, whose clock starts at the first step."""
        found = (STEPS.search(text) for _, text in read_stamped(folder / LOG))
        steps = [int(one[1].replace(",", "")) for one in found if one]
        return validations(folder / "runs" / Path(MODEL).stem, steps[0] if steps else None)

    def model(self, folder: Path) -> Path:
        """The model of the best validation."""
        return folder / MODEL

    def rescue(self, task: Task) -> None:
        """Not needed; the model exists from the first validation on."""


class Taught(Ours):
    """``train-potential teach``: a universal potential that learns the labels, and its student."""

    def command(self, task: Task) -> list[str]:
        """Command; the settings of the recipe are not used."""
        return [
            *(our_program(), "teach", str(task.folder / "fit.h5")),
            *("--validation", str(task.folder / "validation.h5")),
            *("--time", f"{task.seconds:.0f}s", "--clock", task.clock, "--seed", str(task.seed)),
            *("--output", str(task.folder / TAUGHT), *task.extra),
        ]

    def curve(self, folder: Path) -> Curve:
        """Validations of the last two trainings, after those before and the time for the labels."""
        runs = folder / TAUGHT / "trainings" / "runs"
        before = [validations(runs / name, None) for name in ("teacher", "first")]
        settings = json.loads((folder / TAUGHT / SETTINGS).read_text("utf-8"))
        start = LABELLING * parse_duration(settings["time"])
        start += sum(points[-1].seconds for points in before if points)
        found = (STEPS.search(text) for _, text in read_stamped(folder / LOG))
        steps = [int(one[1].replace(",", "")) for one in found if one]
        second, last = steps[-2:] if len(steps) > 1 else (None, None)
        curve = validations(runs / "second", second, start)
        if not curve:
            return []
        ending = validations(runs / "last", last, curve[-1].seconds)
        return curve + [each._replace(epochs=curve[-1].epochs + each.epochs) for each in ending]

    def model(self, folder: Path) -> Path:
        """The model of the best validation."""
        return folder / TAUGHT / MODEL
