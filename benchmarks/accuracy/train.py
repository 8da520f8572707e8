"""Training and test of one program on one set, with a trial; results are saved in a file."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accuracy.curves import Curve, as_json, epochs_that_fit
from benchmarks.accuracy.errors import errors, profile
from benchmarks.accuracy.process import Ended, Place, read_stamped, run_stamped
from benchmarks.accuracy.programs import LOG, Program, Task
from benchmarks.accuracy.programs.ours import Ours
from benchmarks.accuracy.recipes import Recipe
from benchmarks.accuracy.structures import Files
from benchmarks.workers import KEEP_MEMORY

TRIAL = "trial"  # folder
TRIAL_EPOCHS = 2
EARLIEST = 0.85  # fraction of the budget that a training should use at least
LATEST = 1.3  # fraction of the budget at which a training slower than its trial is stopped
SHOW_EVERY = 0.1  # fraction of the budget

Show = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings shared by all trainings of a run.

    Args:
        minutes: training time.
        threads: number of threads of each program.
        extra: options of train-potential, for our training only.
        seed: random seed of the weights and of the order of the batches, for our training only.
        clock: clock of our training time: wall, or cpu for the CPU time of the process.
    """

    minutes: float
    threads: int
    extra: Sequence[str] = field(default=())
    seed: int = 0
    clock: str = "wall"


class TrainingFailed(Exception):
    """A program ended with an error or without a model; the message names the log."""


def measure(
    program: Program,
    recipe: Recipe,
    files: Files,
    folder: Path,
    setting: Setting,
    place: Place,
    show: Show,
) -> dict[str, Any]:
    """Train and test.

    Args:
        program: program to train.
        recipe: recipe of the set.
        files: files of the set.
        folder: folder of this training; its contents are removed.
        setting: settings of the run.
        place: cores to run on.
        show: called with messages about the progress.

    Returns:
        Data for the tables and figures; see ``result``.

    Raises:
        TrainingFailed: the training gave no model.
    """
    shutil.rmtree(folder, ignore_errors=True)
    seconds = 60 * setting.minutes
    run = _Run(program, place, show)
    ours = isinstance(program, Ours)
    # CPU time may be much longer on a busy machine; our program ends itself in any case.
    limit = math.inf if ours and setting.clock == "cpu" else LATEST * seconds
    task = Task(
        recipe,
        files,
        folder.resolve(),
        0,
        seconds,
        limit,
        setting.extra,
        setting.seed,
        setting.clock,
    )
    if program.counts_epochs:
        task, curve, ended = train_epochs(run, task)
    else:
        curve, ended = run.train(task)
    tests = {"validation": files.validation, **files.tests}
    info = run.predict(task, [*tests.values(), *files.profiles.values()])
    predictions = task.folder / "predictions"
    return {
        "program": program.name,
        "set": recipe.name,
        "minutes": setting.minutes,
        "threads": setting.threads,
        "options": list(setting.extra) if ours else [],
        "seed": setting.seed if ours else None,
        "clock": setting.clock if ours else "wall",
        "seconds": curve[-1].seconds,
        "epochs": curve[-1].epochs,
        "structures_seen": round(curve[-1].epochs * files.structures),
        "atoms_per_s": curve[-1].epochs * files.atoms / curve[-1].seconds,
        "parameters": info["parameters"],
        "stopped": ended.stopped,
        "process": ended._asdict(),
        "curve": as_json(curve),
        "errors": {name: errors(path, _of(predictions, path)) for name, path in tests.items()},
        "profiles": {
            name: profile(path, _of(predictions, path), recipe.profiles[name].coordinate)
            for name, path in files.profiles.items()
        },
    }


def train_epochs(run: _Run, task: Task) -> tuple[Task, Curve, Ended]:
    """Train for as many epochs as fit into the time according to a trial.

    If the machine was so busy during the trial that much of the time is left, the training is
    repeated once with the number of epochs that would have fitted.
    """
    run.show(f"a trial of {TRIAL_EPOCHS} epochs")
    trial = task._replace(folder=task.folder / TRIAL, epochs=TRIAL_EPOCHS, limit=math.inf)
    curve, ended = run.train(trial)
    for again in (False, True):
        epochs = epochs_that_fit(curve, task.seconds)
        if epochs <= task.epochs:
            break
        if again:
            run.show(f"{curve[-1].seconds:.0f} s, faster than in the trial: once more")
        task = task._replace(epochs=epochs)
        run.show(f"{epochs} epochs in {task.seconds / 60:g} min")
        run.forget(task)
        curve, ended = run.train(task)
        if ended.stopped or len(curve) < 2 or curve[-1].seconds > EARLIEST * task.seconds:
            break
    return task, curve, ended


def _of(folder: Path, structures: Path) -> Path:
    """Path of the predictions for a file."""
    return folder / f"{structures.stem}.npz"


class _Run:
    """Runner of the processes of one program."""

    def __init__(self, program: Program, place: Place, show: Show) -> None:
        self.program, self.place, self.show = program, place, show

    def train(self, task: Task) -> tuple[Curve, Ended]:
        """Train to the end or the limit; returns the validations."""
        program = self.program
        task.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(program, Ours):
            for number, words in enumerate(program.imports(task)):
                self._run(words, task, f"import_{number}.txt")
        ended = self._run(program.command(task), task, LOG, self._progress(task.seconds))
        curve = program.curve(task.folder)
        if ended.stopped and curve:
            rescue = program.rescue(task)
            if rescue is not None:
                self._run(rescue, task, "rescue.txt")
        if not curve or not program.model(task.folder).exists():
            raise TrainingFailed(
                f"{program.name} left no model on {task.recipe.name}:\n{end_of(task.folder / LOG)}"
            )
        return curve, ended

    def forget(self, task: Task) -> None:
        """Remove files of an earlier training, except the trial."""
        for path in task.folder.iterdir() if task.folder.exists() else ():
            if path.is_dir() and path.name != TRIAL:
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()

    def _progress(self, budget: float) -> Callable[[float, str], None]:
        """Report the used fraction of the time at intervals."""
        next_share = SHOW_EVERY

        def progress(seconds: float, line: str) -> None:
            nonlocal next_share
            share = seconds / budget
            if next_share <= share < 1.0:
                next_share = share + SHOW_EVERY
                self.show(f"{share:.0%} of the time")

        return progress

    def predict(self, task: Task, files: Sequence[Path]) -> dict[str, Any]:
        """Let the model predict all files."""
        program, folder = self.program, task.folder / "predictions"
        folder.mkdir(exist_ok=True)
        model = str(program.model(task.folder))
        words = [program.python, "-m", "benchmarks.accuracy.predict", program.calculator, model]
        words += [str(self.place.threads), str(folder), *map(str, files)]
        self.show("testing")
        self._run(words, task, "predict.txt")
        info: dict[str, Any] = json.loads((folder / "info.json").read_text())
        return info

    def _run(
        self,
        words: Sequence[str],
        task: Task,
        log: str,
        progress: Callable[[float, str], None] = lambda seconds, line: None,
    ) -> Ended:
        training = log == LOG
        ended = run_stamped(
            words,
            task.folder,
            task.folder / log,
            place=self.place,
            variables=KEEP_MEMORY,
            begins=self.program.begins if training else lambda line: True,
            ends=self.program.ends if training else lambda line: False,
            limit=task.limit if training else math.inf,
            show=progress,
        )
        if ended.status and not ended.stopped:
            raise TrainingFailed(
                f"{self.program.name} failed on {task.recipe.name}:\n{end_of(task.folder / log)}"
            )
        return ended


def end_of(log: Path, lines: int = 8) -> str:
    """The last lines of a log, with its name."""
    return "\n".join([f"the end of {log}:", *(text for _, text in read_stamped(log)[-lines:])])
