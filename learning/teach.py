"""A fast potential trained on labels and on a universal potential that has learned them too.

A universal potential that is fine-tuned on some hundred labels often errs less than a small Facet
trained on them, and its errors are others. Both label many structures around those of the dataset,
with the mean that errs least on validation, and the Facet learns these labels and the original
ones; it ends with the original ones and only as many others.

The files of the folder are the state; each is written whole, and what exists is not made again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from numpy.typing import NDArray
from rich.console import Console

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.mean import MeanCalculator
from tesseral.calculators.simulations.folder import lock_folder
from tesseral.calculators.simulations.structures import read_jobs
from tesseral.data.isolated import isolated_rows
from tesseral.data.loading.config import DataConfig
from tesseral.data.loading.datasets import check_elements
from tesseral.data.loading.splits import split_store
from tesseral.data.store.merge import merge_stores
from tesseral.data.store.read import Store, open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import Structure, atoms_from_structure, structure_from_atoms
from tesseral.deploy.export import export_model
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.deploy.universal import model_path
from tesseral.files import check_writable, make_folder, write_json
from tesseral.learning.around import BETWEEN, around
from tesseral.learning.comparison import microseconds
from tesseral.learning.explore import distorted
from tesseral.learning.label import finite_label
from tesseral.learning.settings import (
    keep_settings,
    model_with_content,
    seconds_of_a_step,
    shipped,
    structures_with_content,
    with_content,
)
from tesseral.learning.teach_config import TeachConfig
from tesseral.learning.training import train
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.process import ctrl_c
from tesseral.screen import Show, progress_line
from tesseral.training.config import FitConfig, LossConfig, OptimizationConfig, TrainerConfig
from tesseral.training.duration import parse_duration
from tesseral.training.evaluate import Predictions, evaluate

FIT, VALIDATION, TAUGHT = "fit.h5", "validation.h5", "taught.h5"
TEACHER, FIRST, SECOND, MODEL = (
    f"{name}.safetensors" for name in ("teacher", "first", "second", "model")
)
EXPORT, RESULT, SETTINGS, TRAININGS = "model.pt", "taught.json", "teach.json", "trainings"
LABELS = "labelling"  # folder of the labels before they are complete
LAST = "last.safetensors"  # in the folder of the trainings; complete, it is the model
# Parts of the time; what is left is for the uncertainties and the comparison.
TUNING, LEARNING, LABELLING, TAUGHT_TRAINING, ENDING = 0.4, 0.15, 0.1, 0.28, 0.05
MOST_COPIES = 16
TRIALS = 5  # structures whose time is measured
TUNING_RATE = 0.001  # of the teacher
# Beside absolute errors of forces, squared ones of small energies would hardly count.
TUNING_LOSS = {"energy": "mae", "energy_weight": 2.0}
RATE = 0.004  # of the training that goes on from the first
ENDING_RATE, ENDING_ENERGIES = 0.001, 100.0  # of the last: learning rate, weight of energies
COPIES, STRAIN, RATTLE = 60, 0.04, 0.15  # of each further structure; Å
PART = 20  # structures whose copies are labelled before they are written


class Plan(NamedTuple):
    """How the time is spent; fixed when the labels begin."""

    starts: int  # structures of the dataset, around which others are labelled
    copies: int  # of each


class Taught(NamedTuple):
    """Result of `teach`."""

    model: Path
    export: Path
    result: dict[str, Any] | None  # see `_compare`; None if it was stopped
    signal: int | None = None  # that stopped a training


def teach(config: TeachConfig, console: Console | None = None) -> Taught:
    """Train a potential on labels, and on those of its teachers; the same call resumes.

    Args:
        config: dataset, teacher and options.
        console: console for progress and results; silent if None.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the dataset or the teacher cannot be used, or the folder has other results.
        DivergenceError: a training diverged.
        KeyboardInterrupt: after Ctrl-C.
    """
    folder = config.folder
    check_writable(folder)
    universal = model_path(config.teacher).absolute()
    known = set(TesseralCalculator(universal, device=config.device).card.elements)
    store = open_store(config.train)
    validation = None if config.validation is None else open_store(config.validation)
    parts = _parts(config, store, validation)
    others = _further(config, known | set(store.elements))

    make_folder(folder)
    with closing(lock_folder(folder)):
        begun = any((folder / name).exists() for name in (TEACHER, TRAININGS))
        keep_settings(folder / SETTINGS, _settings(config), begun)
        for path, structures, attributes in parts:
            if not (begun and path.exists()):
                write_store(path, structures, attributes=attributes)
        model, export = folder / MODEL, folder / EXPORT
        for title, name, training in (
            ("1. the teacher learns the labels", TEACHER, partial(_tuning, universal=universal)),
            ("2. a first potential learns them", FIRST, _first),
            ("3. both label structures around those of the dataset", TAUGHT, None),
            ("4. the first potential learns their labels too", SECOND, _second),
            ("5. it ends with the original labels and only as many of theirs", MODEL, _last),
        ):
            if name == SECOND and model.exists():  # of a version without the fifth step
                break
            _say(console, title, folder / name)
            if training is None:
                with progress_line(console) as bar, ctrl_c() as stop:
                    _label(config, others, bar, stop)
                continue
            signal = train(training(config), folder / name, console)
            if signal is not None:
                return Taught(model, export, None, signal)
        export_model(model, export)
        with progress_line(console) as bar:
            bar(0, 1, "comparing the potentials")
            result = _compare(config)
        write_json(folder / RESULT, result, indent=1)
        return Taught(model, export, result)


def _settings(config: TeachConfig) -> dict[str, Any]:
    """All that determines the results."""
    settings = {**asdict(config), "output": None, "device": None}
    for name in ("train", "validation"):
        if settings[name] is not None:
            data = open_store(settings[name])
            settings[name] = with_content(data.path.name, data.content_hash)
    settings["teacher"] = model_with_content(config.teacher)
    settings["structures"] = structures_with_content(config.structures)
    return settings


def _say(console: Console | None, title: str, made: Path) -> None:
    """Announce a step that is to be done."""
    if console is not None and not made.exists():
        console.print(f"\n{title}", markup=False, highlight=False, soft_wrap=True)


def _parts(
    config: TeachConfig, store: Store, validation: Store | None
) -> list[tuple[Path, Iterator[Structure], dict[str, Any]]]:
    """Structures to fit and those to validate, the same for all trainings: file, content, origin.

    Raises:
        ValueError: labels are of several levels of theory, validation structures have elements that
            the others lack, or there are too few structures.
    """
    theories = {*store.texts("theory"), *([] if validation is None else validation.texts("theory"))}
    if len(theories) > 1:
        names = ", ".join(text or "(none)" for text in sorted(theories))
        raise ValueError(
            f"the labels are of several levels of theory, {names}; give datasets of one as `train` "
            "and `validation`"
        )
    if validation is None:
        split = split_store(store, method="auto", fraction=0.1, seed=config.seed)
        rows, other, others = split.train, store, split.validation
    else:
        check_elements(validation, store.elements)
        rows, other, others = np.arange(len(store)), validation, np.arange(len(validation))
    if isolated_rows(store, rows).all():
        raise ValueError(f"{store.path} has isolated atoms only; add structures to learn")
    return [
        (config.folder / FIT, map(store.__getitem__, rows.tolist()), store.attributes),
        (config.folder / VALIDATION, map(other.__getitem__, others.tolist()), other.attributes),
    ]


def _training(config: TeachConfig, name: str, part: float, values: dict[str, Any]) -> FitConfig:
    """Training with the settings of a shipped file, for a part of the time."""
    folder = config.folder
    return FitConfig(
        data=DataConfig(
            train=str(folder / FIT),
            validation=str(folder / VALIDATION),
            seed=config.seed,
            **values.get("data", {}),
        ),
        output=str(folder / TRAININGS / name),
        model=FacetConfig(**values.get("model", {})),
        loss=LossConfig(**values.get("loss", {})),
        optimization=OptimizationConfig(**values.get("optimization", {})),
        trainer=TrainerConfig(
            max_time=f"{part * parse_duration(config.time):.1f}s", clock=config.clock
        ),
        seed=config.seed,
    )


def _tuning(config: TeachConfig, universal: Path) -> FitConfig:
    """Fine-tuning of the teacher."""
    nequip = isinstance(read_card(universal).config, NequIPConfig)
    values = shipped("finetune_universal.yaml" if nequip else "finetune.yaml")
    if nequip:
        values["optimization"]["learning_rate"] = TUNING_RATE
        values["loss"] |= TUNING_LOSS
    made = _training(config, TEACHER, TUNING, values)
    return replace(made, init_from=str(universal))


def _first(config: TeachConfig) -> FitConfig:
    """Training of the first potential on the labels."""
    return _training(config, FIRST, LEARNING, _student(config))


def _second(config: TeachConfig) -> FitConfig:
    """Training of the first potential on the labels and those of the teachers."""
    made = _training(config, SECOND, TAUGHT_TRAINING, _student(config))
    taught = config.folder / TAUGHT
    ratio = len(open_store(taught)) / len(open_store(config.folder / FIT))
    return replace(
        made,
        data=replace(made.data, replay=str(taught), replay_ratio=ratio),
        # With so many labels, weight decay only hinders (docs/measurements/experiments.md).
        optimization=replace(made.optimization, learning_rate=RATE, weight_decay=0.0),
        init_from=str(config.folder / FIRST),
    )


def _last(config: TeachConfig) -> FitConfig:
    """Training of the second potential on the labels and only as many of those of the teachers.

    The labels of the teachers are many, but those of the dataset are the right ones. Where they are
    too few for this, validation keeps the second potential.
    """
    made = _training(config, LAST, ENDING, _student(config))
    return replace(
        made,
        data=replace(made.data, replay=str(config.folder / TAUGHT)),
        loss=replace(made.loss, energy_weight=ENDING_ENERGIES),
        optimization=replace(made.optimization, learning_rate=ENDING_RATE, weight_decay=0.0),
        init_from=str(config.folder / SECOND),
    )


def _student(config: TeachConfig) -> dict[str, Any]:
    """Settings of the potential: those of a shipped file, or the defaults for crystals."""
    if config.size == "fast":
        return shipped("fast.yaml")
    periodic = any(structure.pbc.any() for structure in open_store(config.folder / FIT))
    values = {} if periodic else shipped("molecules.yaml")
    if config.size == "large":
        usual = FacetConfig(**values.get("model", {}))
        wide = {"channels": 2 * usual.channels, "grid_channels": 2 * usual.grid_channels}
        values["model"] = values.get("model", {}) | wide
    return values


def _label(config: TeachConfig, others: list[Atoms], bar: Show, stop: Callable[[], None]) -> None:
    """Labels of both teachers around the structures of the dataset, and of one around others."""
    folder = config.folder
    target, place = folder / TAUGHT, folder / LABELS
    if not target.exists():
        make_folder(place)
        driver = TesseralCalculator(folder / FIRST, device=config.device)
        share = _share(config)
        models = [folder / TEACHER, folder / FIRST]
        mean = MeanCalculator(models, device=config.device, weights=[share, 1 - share])
        store = open_store(folder / FIT)
        rows = np.nonzero(~isolated_rows(store, np.arange(len(store))))[0]
        stop()
        plan = _plan(config, store, rows, driver, mean)
        chosen = rows[np.linspace(0, len(rows) - 1, plan.starts).round().astype(int)]
        parts = []
        for begin in range(0, len(chosen), PART):
            path = place / f"{begin:07d}.h5"
            parts.append(path)
            if not path.exists():
                nearby = _around(config, store, chosen, begin, plan, driver, bar, stop)
                write_store(path, _labels(nearby, mean, stop))
        for index, atoms in enumerate(others):
            path = place / f"further-{index:04d}.h5"
            parts.append(path)
            if not path.exists():
                bar(index, len(others), f"copies of {atoms.info['name']}")
                copies = _copies(config, index, atoms, store.texts("theory")[0])
                write_store(path, _labels(copies, mean.members[0], stop))
        merge_stores([str(path) for path in parts], str(target))
        stop()
    shutil.rmtree(place, ignore_errors=True)


def _around(
    config: TeachConfig,
    store: Store,
    chosen: NDArray[np.int64],
    begin: int,
    plan: Plan,
    driver: TesseralCalculator,
    bar: Show,
    stop: Callable[[], None],
) -> Iterator[tuple[Atoms, Structure]]:
    """Structures around a part of those of the dataset, each with the one that it is around."""
    for number, row in enumerate(chosen[begin : begin + PART], begin):
        own = store[int(row)]
        atoms = atoms_from_structure(own)
        atoms.calc = driver
        rng = np.random.default_rng([config.seed, int(row)])
        near = around(atoms, plan.copies, _timestep(atoms), rng, stop)
        for count, structure in enumerate(near, number * plan.copies):
            bar(count, len(chosen) * plan.copies, "structures around those of the dataset")
            yield structure, own


def _copies(
    config: TeachConfig, index: int, atoms: Atoms, theory: str
) -> Iterator[tuple[Atoms, Structure]]:
    """Strained and rattled copies of a further structure.

    The teacher alone labels them: the first potential does not know such structures.
    """
    own = structure_from_atoms(Atoms(atoms))
    own = own._replace(config_type=atoms.info["name"], group="", theory=theory)
    for copy in distorted(
        atoms, COPIES, STRAIN, RATTLE, np.random.default_rng([config.seed, index])
    ):
        yield copy, own


def _labels(
    found: Iterator[tuple[Atoms, Structure]],
    calculator: MeanCalculator | TesseralCalculator,
    stop: Callable[[], None],
) -> Iterator[Structure]:
    """Structures with labels; those whose energy or forces are not finite are left out."""
    for atoms, own in found:
        stop()
        atoms.calc = calculator
        label = finite_label(atoms)
        if label is not None:
            yield label._replace(config_type=own.config_type, group=own.group, theory=own.theory)


def _share(config: TeachConfig) -> float:
    """Weight of the teacher in the mean that has the smallest force error on validation."""
    found = [_evaluated(config, name, keep=True) for name in (TEACHER, FIRST)]
    labels, (teacher, first) = found[0].forces_label, (one.forces for one in found)
    apart = first - teacher
    known = np.isfinite(labels)
    squared = float(np.square(apart[known]).sum())
    share = float(((first - labels) * apart)[known].sum()) / squared if squared > 0 else 0.5
    return min(max(share, 0.0), 1.0)


def _evaluated(config: TeachConfig, name: str, keep: bool) -> Predictions:
    """Errors of a potential of the folder on the validation structures."""
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    potential, card = load_model(config.folder / name, device=device)
    return evaluate(potential, open_store(config.folder / VALIDATION), card.elements, keep=keep)


def _further(config: TeachConfig, known: set[int]) -> list[Atoms]:
    """The further structures.

    Args:
        config: options.
        known: atomic numbers that the teacher and the dataset have.

    Raises:
        ValueError: one cannot be read, or has an element that the teacher does not know.
    """
    found = []
    for job in read_jobs(config.structures) if config.structures else ():
        atoms = job.structure()
        unknown = sorted({a.symbol for a in atoms if a.number not in known})
        if unknown:
            raise ValueError(
                f"{job.file} has {', '.join(unknown)}, which neither the teacher, "
                f"{config.teacher}, nor `train` has; leave this structure out of `structures`"
            )
        atoms.set_constraint()
        atoms.info = {"name": job.name}
        found.append(atoms)
    return found


def _timestep(atoms: Atoms) -> float:
    """Time step, fs."""
    return 1.0 if 1 in atoms.numbers else 2.0


def _plan(
    config: TeachConfig,
    store: Store,
    rows: NDArray[np.int64],
    driver: TesseralCalculator,
    mean: MeanCalculator,
) -> Plan:
    """Numbers of structures by the speed of the models, kept for a run that resumes."""
    path = config.folder / LABELS / "plan.json"
    if path.exists():
        return Plan(**json.loads(path.read_text("utf-8")))
    if config.copies is not None:
        return Plan(len(rows), config.copies)
    clock = time.process_time if config.clock == "cpu" else time.perf_counter
    seconds = []
    for row in rows[:: max(1, len(rows) // TRIALS)]:
        atoms = atoms_from_structure(store[int(row)])
        with suppress(ValueError, CalculationFailed):  # as of atoms that overlap
            step, label = (seconds_of_a_step(atoms, each, clock) for each in (driver, mean))
            seconds.append(BETWEEN * step + label)
    if not seconds:
        raise ValueError(f"the models give no finite forces for structures of {store.path}")
    total = LABELLING * parse_duration(config.time) / float(np.mean(seconds))
    copies = min(max(1, int(total / len(rows))), MOST_COPIES)
    plan = Plan(min(len(rows), max(1, int(total / copies))), copies)
    write_json(path, plan._asdict(), indent=1)
    return plan


def _compare(config: TeachConfig) -> dict[str, Any]:
    """Errors on the validation structures, and speed, of the potentials of the folder.

    Returns:
        For ``teacher``, ``first`` and ``model``: ``errors`` as `evaluate` returns them, and
        ``microseconds`` per atom. ``labels`` is the number of structures that the teachers
        labelled, ``structures`` that of the dataset.
    """
    folder = config.folder
    validation = open_store(folder / VALIDATION)
    largest = atoms_from_structure(validation[int(np.argmax(validation.n_atoms))])
    result: dict[str, Any] = {
        "structures": len(open_store(folder / FIT)),
        "labels": len(open_store(folder / TAUGHT)),
    }
    for name, file in (("teacher", TEACHER), ("first", FIRST), ("model", MODEL)):
        calculator = TesseralCalculator(folder / file, device=config.device)
        result[name] = {
            "errors": _evaluated(config, file, keep=False).errors,
            "microseconds": microseconds(largest, calculator),
        }
    return result
