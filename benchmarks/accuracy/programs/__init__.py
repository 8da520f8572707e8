"""How each program is trained: its command, its log, the model it leaves."""

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
NEVER = 1_000_000  # epochs between checkpoints that nobody needs


class Task(NamedTuple):
    """One training of one program."""

    recipe: Recipe
    files: Files
    folder: Path  # of this training, absolute
    epochs: int  # for programs that count those
    seconds: float  # the budget
    limit: float  # seconds after which the training is stopped
    extra: Sequence[str]  # options for ours


class Program(Protocol):
    """What the suite needs to know about a program.

    Attributes:
        name: for tables and ``--only``.
        calculator: function of ``calculators`` that loads its model.
        python: interpreter of its environment.
        counts_epochs: it is given a number of epochs instead of a time, found by a trial.
    """

    name: str
    calculator: str
    python: str
    counts_epochs: bool

    def command(self, task: Task) -> list[str]:
        """Words that start the training; settings are written to the folder."""
        ...

    def begins(self, line: str) -> bool:
        """Whether a line of the output says that training begins."""
        ...

    def ends(self, line: str) -> bool:
        """Whether a line says that training is over, where much comes after it."""
        ...

    def curve(self, folder: Path) -> Curve:
        """The validations of a training, also of one that is not finished."""
        ...

    def model(self, folder: Path) -> Path:
        """The model that a user would take."""
        ...

    def rescue(self, task: Task) -> list[str] | None:
        """Words that make a model of the last checkpoint, where a stopped training leaves none."""
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
        lines: of the log, with seconds.
        begins: tells the line at which training begins.
        pattern: of the line that ends an epoch; its first group is the number.
        values: energy and force MAE in meV by number of the epoch.
        first_epoch: number that the program gives to its first epoch.
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
    """The complete lines of a file of JSON objects; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
