"""Errors of every structure by a model that has not seen it, and the training on all of them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tesseral.data.graph import Batch, atom_counts
from tesseral.data.loading.config import DataConfig
from tesseral.data.loading.datasets import EvaluationLoader, GraphDataset
from tesseral.data.loading.splits import Split, split_folds, split_store
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model
from tesseral.files import write_json, write_text
from tesseral.potentials.derivatives import Prediction
from tesseral.training.config import FitConfig
from tesseral.training.metrics import QUANTITIES, UNITS, ErrorSums
from tesseral.training.uncertainty import HeldOut
from tesseral.training.validation import predictions

COLUMNS = ("row", "fold", "config_type", "atoms", "energy_error_meV_atom", "forces_rmse_meV_A")
STRUCTURES = "held_out.csv"
RESULT = "result.json"  # of a fold that is complete
MODEL = "model.safetensors"
BATCH_EDGES = 20_000


class Final(NamedTuple):
    """Length of the training on all structures, and what is known about its model before."""

    steps: int  # for which the schedule is made
    last: int  # at which it ends
    errors: dict[str, Any]  # of held-out structures, see ErrorSums.summary
    record: dict[str, Any]  # for the model card


class Part(NamedTuple):
    """One of several trainings on parts of the same file."""

    title: str
    split: Split
    first: bool = False  # of all
    final: Final | None = None  # of the last one


def parts_of(config: DataConfig) -> list[Part]:
    """The trainings on all folds; without folds, the one with validation structures.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be split.
    """
    store = open_store(config.train)
    if config.folds is None:
        fraction = config.validation_fraction
        split = split_store(store, method=config.split, fraction=fraction, seed=config.seed)
        return [Part("with validation structures", split, first=True)]
    splits = split_folds(store, folds=config.folds, method=config.split, seed=config.seed)
    titles = [f"fold {number} of {config.folds}" for number in range(1, config.folds + 1)]
    return [
        Part(title, split._replace(reason=f"{split.reason}, {title}"), first=split is splits[0])
        for title, split in zip(titles, splits, strict=True)
    ]


def fold_config(config: FitConfig, number: int) -> FitConfig:
    """Options of the training of one fold, from 0; it resumes if it had begun."""
    folder = config.run_directory / f"fold_{number + 1}"
    resumes = config.ckpt_path is not None and (folder / "last.ckpt").exists()
    return replace(
        config,
        output=str(folder / MODEL),
        trainer=replace(config.trainer, directory=str(folder)),
        ckpt_path="last" if resumes else None,
    )


def write_fold(config: FitConfig, history: list[dict[str, Any]]) -> None:
    """Record that a fold is complete."""
    write_json(
        config.run_directory / RESULT, {"options": _options(config), "history": history}, indent=1
    )


def read_fold(config: FitConfig) -> list[dict[str, Any]] | None:
    """History of a fold that is complete; None if it is not.

    Raises:
        ValueError: it was trained with other options.
    """
    path = config.run_directory / RESULT
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(_options(config)))
    for name, value in now.items():
        before = found["options"].get(name)
        if before != value:
            raise ValueError(
                f"{path} belongs to a training with other options ({name} {before} there, {value} "
                "here); give the same, or leave out `ckpt_path` to start from the beginning"
            )
    history: list[dict[str, Any]] = found["history"]
    return history


def _options(config: FitConfig) -> dict[str, Any]:
    """Options that change a training, and the content of its data."""
    values = {
        f"{part}.{name}": value
        for part in ("data", "model", "loss", "optimization")
        for name, value in asdict(getattr(config, part)).items()
        if (part, name) not in MACHINE
    }
    values |= {f"trainer.{name}": getattr(config.trainer, name) for name in LIMITS}
    values |= {name: getattr(config, name) for name in ("seed", "init_from", "short_range")}
    return {**values, "content of data.train": open_store(config.data.train).content_hash}


# Options of the machine, and the path of the data, whose content is compared.
MACHINE = (("data", "train"), ("data", "workers"), ("data", "cache_gigabytes"))
LIMITS = ("max_time", "clock", "max_epochs", "max_steps")


def best_length(histories: Sequence[list[dict[str, Any]]]) -> tuple[int, int]:
    """Steps of the schedule of the final training, and the step at which it ends.

    The schedule has as many steps as those of the folds (the median). It ends where the mean of the
    logarithms of their validation losses is least, at the same part of the schedule: one model that
    is by chance good at some point counts little.
    """
    totals = [history[-1]["step"] for history in histories]
    places = [
        np.array([entry["step"] / total for entry in history])
        for history, total in zip(histories, totals, strict=True)
    ]
    start = max(place[0] for place in places)
    grid = np.unique(np.concatenate(places))
    grid = grid[grid >= start]
    losses = [
        np.interp(grid, place, np.log([max(entry["loss"], 1e-300) for entry in history]))
        for place, history in zip(places, histories, strict=True)
    ]
    steps = max(1, round(float(np.median(totals))))
    best = float(grid[int(np.mean(losses, axis=0).argmin())])
    return steps, max(1, round(best * steps))


def held_out(config: FitConfig, parts: Sequence[Part]) -> list[HeldOut]:
    """The models of all folds, with their structures.

    Raises:
        ValueError: a model file is damaged.
    """
    store = open_store(config.data.train)
    made = []
    for number, part in enumerate(parts):
        potential, card = load_model(fold_config(config, number).output)
        train, validation = (
            GraphDataset(store, rows, card.elements, potential.cutoff)
            for rows in (part.split.train, part.split.validation)
        )
        made.append(HeldOut(potential, train, validation))
    return made


class HeldOutErrors(NamedTuple):
    """Errors of structures by models that have not seen them."""

    summary: dict[str, Any]  # of all together, by config type too, see ErrorSums.summary
    spread: dict[str, Any]  # mean and standard deviation of the MAE of the folds, by quantity
    structures: list[tuple[Any, ...]]  # in the order of COLUMNS, one for each structure, by row


def held_out_errors(folds: Sequence[HeldOut]) -> HeldOutErrors:
    """Predict the held-out structures of all folds."""
    store, elements = folds[0].train.store, folds[0].train.elements
    types = store.texts("config_type")
    names = sorted(set(types))
    rows = torch.tensor([names.index(kind) for kind in types])
    total, each, structures = ErrorSums(elements, names, rows), [], []
    for number, fold in enumerate(folds, 1):
        sums = ErrorSums(elements, names, rows)
        device = fold.potential.embedding.device
        batches = EvaluationLoader(fold.validation, BATCH_EDGES)
        for batch, prediction in predictions(fold.potential, batches, device):
            sums.add(batch, prediction)
            energy, forces = structure_errors(batch, prediction)
            structures += [
                (row, number, types[row], int(store.n_atoms[row]), one, other)
                for row, one, other in zip(batch.index.tolist(), energy, forces, strict=True)
            ]
        total.sums += sums.sums
        each.append(sums.summary())
    spread = {}
    for name in QUANTITIES:
        values = [errors[name]["mae"] for errors in each if name in errors]
        if values:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            spread[name] = {"mean": float(np.mean(values)), "deviation": deviation}
    return HeldOutErrors(total.summary(), spread, sorted(structures))


def structure_errors(batch: Batch, prediction: Prediction) -> tuple[list[float], list[float]]:
    """Energy errors (meV/atom) and force RMSE (meV/Å) of the structures of a batch; NaN: no label.

    A structure whose forces are labelled in part has no force error.
    """
    graph, labels = batch.graph, batch.labels
    n_atoms = atom_counts(graph)
    energy = 1e3 * (prediction.energy - labels.energy) / n_atoms
    squares = (prediction.forces - labels.forces).square().sum(1)
    sums = torch.zeros_like(energy).index_add_(0, graph.structure, squares.to(energy.dtype))
    return energy.tolist(), (1e3 * (sums / (3 * n_atoms)).sqrt()).tolist()


def write_structures(path: Path, errors: HeldOutErrors) -> None:
    """Write the errors of all structures as a CSV table.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        [f"{value:.4g}" if isinstance(value, float) else value for value in row]
        for row in errors.structures
    )
    write_text(path, text.getvalue())


def spread_line(spread: dict[str, Any], folds: int) -> str:
    """Mean and standard deviation of the MAE of the folds as text."""
    parts = [
        f"{each['mean']:.3g} ± {_two_digits(each['deviation'])} {UNITS[name]}"
        for name, each in spread.items()
    ]
    return f"mean and standard deviation of the {folds} folds: {', '.join(parts)}"


def _two_digits(value: float) -> str:
    """A number with two significant digits."""
    return f"{value:#.2g}".rstrip(".")
