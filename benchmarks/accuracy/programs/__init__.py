"""Training with each program: its command, its log, the resulting model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.accuracy.curves import Curve, Point
from benchmarks.accuracy.recipes import Recipe
from benchmarks.accuracy.structures import Files

LOG = "log.txt"
NEVER = 1_000_000  # epochs between checkpoints that are not needed


class Task(NamedTuple):
    """One training of one program."""

    recipe: Recipe
    files: Files
    folder: Path  # folder of this training, absolute
    epochs: int  # for programs that count epochs
    seconds: float  # time budget
    limit: float  # seconds after which the training is stopped
    extra: Sequence[str]  # options for our program
    seed: int = 0  # of our program
    clock: str = "wall"  # of our program


class Program(Protocol):
    """Interface to a training program.

    Attributes:
        name: name in tables and for ``--only``.
        calculator: function of ``calculators`` that loads the model.
        python: interpreter of the environment.
        counts_epochs: whether the program needs a number of epochs, found by a trial, not a time.
    """

    name: str
    calculator: str
    python: str
    counts_epochs: bool

    def command(self, task: Task) -> list[str]:
        """Command that starts the training; settings are written to the folder."""
        ...

    def begins(self, line: str) -> bool:
        """Whether a line of the output marks the start of the training."""
        ...

    def ends(self, line: str) -> bool:
        """Whether a line marks the end of the training, if much work follows it."""
        ...

    def curve(self, folder: Path) -> Curve:
        """The validations of a training, which need not be finished."""
        ...

    def model(self, folder: Path) -> Path:
        """The model that a user would use."""
        ...

    def rescue(self, task: Task) -> list[str] | None:
        """Command that makes a model from the last checkpoint after a stopped training."""
        ...


def merge(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with changes."""
    result = dict(settings)
    for name, value in changes.items():
        inner = result.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[name] = merge(inner, value) if both else value  # type: ignore[arg-type]
    return result


def timed_points(
    lines: Sequence[tuple[float, str]],
    begins: Callable[[str], bool],
    pattern: re.Pattern[str],
    values: Mapping[int, tuple[float, float]],
    first_epoch: int,
) -> Curve:
    """A curve from the times in a log and the errors in another file.

    Args:
        lines: lines of the log, with seconds.
        begins: whether a line marks the start of the training.
        pattern: pattern of the line that ends an epoch; its first group is the number.
        values: energy and force MAE in meV by number of the epoch.
        first_epoch: number of the first epoch in the program.
    """
    start = next((seconds for seconds, text in lines if begins(text)), None)
    curve: Curve = []
    for seconds, text in lines:
        found = pattern.search(text)
        if start is not None and found and int(found[1]) in values:
            epoch = int(found[1])
            curve.append(Point(seconds - start, epoch - first_epoch + 1, *values[epoch]))
    return curve


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file of JSON objects; none if the file does not exist."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
