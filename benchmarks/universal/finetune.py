"""Training on 20 silicon structures, by fine-tuning the universal model or from scratch.

All trainings use ``train-potential fit`` on the same 20 structures, with the same validation
structures and the same processor time. The learning rate is chosen with the validation structures;
the test set is read once, at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from rich.console import Console

from benchmarks.accuracy.__main__ import train_all
from benchmarks.accuracy.recipes import Recipe
from benchmarks.accuracy.results import Job, find_results, folder_of, read_result
from benchmarks.accuracy.structures import read_frames, write_files, write_frames
from benchmarks.accuracy.train import Setting
from benchmarks.machine import machine
from benchmarks.sheets import Sheet, save
from benchmarks.study.trainings import LONG, Variant
from benchmarks.universal.predictions import predict
from benchmarks.universal.programs import ours
from benchmarks.universal.structures import SEED
from benchmarks.universal.zero_shot import errors, mlearn
from benchmarks.workers import ROOT
from tesseral.deploy.card import config_to_values
from tesseral.deploy.modelfile import read_card

CONFIGS = ROOT / "configs"
STRUCTURES, VALIDATION = 20, 20
NAME = "Si20"


class Trial(NamedTuple):
    """Definition of a training."""

    name: str  # unique name
    options: Mapping[str, Any]  # options of train-potential fit, nested
    start: Path | None = None  # model to start from


def trials(options: argparse.Namespace) -> list[Trial]:
    """The universal model at each rate, then our architectures and its own from scratch."""
    tuned = _config("finetune_universal")
    model = Path(ours(options).arguments["path"])
    found = []
    for rate in options.rates:
        optimization = {**tuned["optimization"], "learning_rate": rate}
        settings = {**tuned, "optimization": optimization}
        found.append(Trial(f"fine-tuned, rate {rate:g}", settings, model))
    network = config_to_values(read_card(model).config)
    left = ("spline_intervals", "kinks", "zbl")  # as for a potential trained from scratch
    own = {name: value for name, value in network.items() if name not in left}
    return [
        *found,
        Trial("Facet from scratch", {}),
        Trial("NequIP from scratch", _config("nequip")),
        Trial("SevenNet-0's network from scratch", {"model": own}),
    ]


def write_sources(options: argparse.Namespace) -> Path:
    """A data folder with the drawn structures and the test set."""
    folder: Path = options.output / "finetune_data"
    folder.mkdir(parents=True, exist_ok=True)
    frames = read_frames(mlearn(options, "Si_train"))
    drawn = np.random.default_rng(SEED).permutation(len(frames))[: STRUCTURES + VALIDATION]
    write_frames([frames[i] for i in sorted(drawn)], folder / "train.xyz", True)
    write_frames(read_frames(mlearn(options, "Si_test")), folder / "test.xyz", True)
    return folder


def job_of(trial: Trial, options: argparse.Namespace) -> Job:
    """A training as in the accuracy benchmark."""
    recipe = Recipe(
        name=NAME,
        train="train.xyz",
        validation=VALIDATION,
        tests={"test": "test.xyz"},
        minutes=options.minutes,
        stress=True,
        fit={**trial.options, "trainer": {"validate_every": 20 if trial.start else 100}},
    )
    extra = ["--trainer.max_time", f"{60 * options.minutes:.0f}s", "--trainer.clock", "cpu"]
    if trial.start is not None:
        extra += ["--init-from", str(trial.start)]
    setting = Setting(minutes=LONG, threads=1, extra=extra)
    return recipe, setting, Variant(trial.name)


def finetune_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Run the missing trainings; report test errors with those before any training."""
    listed = trials(options)
    jobs = {trial.name: job_of(trial, options) for trial in listed}
    folder = write_sources(options)
    missing: list[Job] = []
    for recipe, setting, program in jobs.values():
        missing += find_results(options.output, [(recipe, setting)], [program], again=False)[1]
    options.threads, options.parallel = 1, 1
    if missing:
        files = write_files(missing[0][0], folder, options.output / NAME / "data")
        for failure in train_all(missing, {NAME: files}, machine(), options, terminal):
            terminal.print(f"failed: {failure}", style="bold", markup=False, soft_wrap=True)
    results = {
        name: read_result(folder_of(options.output, recipe, program.name))
        for name, (recipe, _, program) in jobs.items()
    }
    save(options.output / "finetune.json", results)
    sheet = Sheet(
        f"mlearn Si: {STRUCTURES} structures, {options.minutes:g} minutes on one core",
        ("training", "weights", "epochs", "validation forces", "energy", "forces", "stress"),
        "MAE in meV/atom, meV/Å, GPa on the test set of 25 structures; validation: forces on "
        f"{VALIDATION} other structures of the training file, used to choose rate and weights.",
    )
    path = folder / "test.xyz"
    before = errors(read_frames(path), predict(ours(options), path, options.output))
    sheet.rows.append(
        ("none, one energy fitted", "–", "0", "–", *(f"{value:.3g}" for value in before))
    )
    for name, result in results.items():
        if result is None:
            continue
        test = result["errors"]["test"]
        cells = [f"{result['parameters']:,}", f"{result['epochs']:.0f}"]
        cells.append(f"{result['errors']['validation']['forces_mae']:.3g}")
        cells += [f"{test[f'{what}_mae']:.3g}" for what in ("energy", "forces", "stress")]
        sheet.rows.append((name, *cells))
    return [sheet]


def _config(name: str) -> dict[str, Any]:
    """A shipped configuration without its time limit."""
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    content.pop("trainer", None)
    return dict(content)
