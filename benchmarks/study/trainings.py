"""Our trainings with different options; run once, and saved with their test errors."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console

from benchmarks.accuracy.__main__ import train_all
from benchmarks.accuracy.programs.ours import Ours
from benchmarks.accuracy.recipes import all_recipes
from benchmarks.accuracy.results import Job, find_results, folder_of, read_result
from benchmarks.accuracy.structures import check_files, write_files
from benchmarks.accuracy.train import Setting
from benchmarks.machine import machine

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LONG = 600.0  # minutes after which a training is stopped


def read_config(name: str) -> dict[str, Any]:
    """Contents of a config file of the package."""
    content: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    return content


class Variant(Ours):
    """``train-potential fit`` with given options and a given name."""

    def __init__(self, name: str) -> None:
        """Name it."""
        self.name = name


class Training(NamedTuple):
    """Definition of a training."""

    set: str  # name of a recipe of benchmarks.accuracy
    name: str  # unique on the set
    options: Mapping[str, Any]  # options of train-potential fit, nested as in its --config
    seed: int
    minutes: float | None = None  # minutes of processor time; None if the steps are limited


def job_of(training: Training, threads: int) -> Job:
    """A training as in the accuracy benchmark, with the data of the recipe and our options."""
    recipe = all_recipes()[training.set]
    settings = dict(training.options)
    start = {} if recipe.config is None else read_config(recipe.config)
    given = {"data": {**start.get("data", {}), **recipe.fit.get("data", {})}}
    for part, values in {**given, "trainer": recipe.fit.get("trainer", {})}.items():
        settings[part] = {**values, **settings.get(part, {})}
    if not recipe.stress:
        settings["loss"] = {"stress_weight": 0.0, **settings.get("loss", {})}
    recipe = replace(recipe, config=None, fit={**settings, "seed": training.seed}, profiles={})
    limit: list[str] = []
    if training.minutes is not None:
        limit = ["--trainer.max_time", f"{60 * training.minutes:.0f}s", "--trainer.clock", "cpu"]
    setting = Setting(minutes=LONG, threads=threads, extra=limit)
    return recipe, setting, Variant(training.name)


def model_of(training: Training, options: argparse.Namespace) -> Path:
    """Path of the trained model."""
    recipe, _, program = job_of(training, options.threads)
    return folder_of(options.output, recipe, program.name) / "model.safetensors"


def train(
    trainings: Sequence[Training], options: argparse.Namespace, terminal: Console
) -> list[dict[str, Any] | None]:
    """Results of all trainings, or None if one failed; missing trainings are run first.

    Args:
        trainings: requested trainings, with unique names.
        options: command-line options: data, output, threads, parallel.
        terminal: console for the progress.

    Raises:
        FileNotFoundError: the data do not exist.
        ValueError: an earlier result with the same name has other settings.
    """
    jobs = [job_of(training, options.threads) for training in trainings]
    missing: list[Job] = []
    for recipe, setting, program in jobs:
        check_files(recipe, options.data)
        missing += find_results(options.output, [(recipe, setting)], [program], again=False)[1]
    files = {
        recipe.name: write_files(recipe, options.data, options.output / recipe.name / "data")
        for recipe in {recipe.name: recipe for recipe, _, _ in missing}.values()
    }
    for failure in train_all(missing, files, machine(), options, terminal):
        terminal.print(f"failed: {failure}", style="bold", markup=False, soft_wrap=True)
    return [
        read_result(folder_of(options.output, recipe, program.name)) for recipe, _, program in jobs
    ]
