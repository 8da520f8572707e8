"""Training, from a configuration to a model file."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from tesseral.data.doctor.checkup import quick_check
from tesseral.data.doctor.display import short_form
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.loading.datasets import GraphDataset
from tesseral.data.loading.splits import Split
from tesseral.data.store.read import open_store
from tesseral.deploy.card import config_to_values
from tesseral.deploy.modelfile import (
    ModelCard,
    build_potential,
    load_model,
    read_card,
    save_model,
)
from tesseral.files import make_folder
from tesseral.potentials.message_passing import MessagePassing, one_level
from tesseral.process import machine
from tesseral.screen import progress_line
from tesseral.training.batches import FitData
from tesseral.training.callback import FitRun
from tesseral.training.checkpoints import CompleteError, check_checkpoint, prepare_folders
from tesseral.training.config import FitConfig
from tesseral.training.device import batch_line, chosen_for, uses_gpu
from tesseral.training.display import (
    FitDisplay,
    duration,
    error_table,
    uncertainty_line,
    validation_errors,
)
from tesseral.training.folds import (
    STRUCTURES,
    Final,
    Part,
    best_length,
    fold_config,
    held_out,
    held_out_errors,
    parts_of,
    read_fold,
    spread_line,
    write_fold,
    write_structures,
)
from tesseral.training.initial_weights import Trained, open_initial, start
from tesseral.training.loggers import check_loggers, open_loggers
from tesseral.training.module import PotentialModule
from tesseral.training.plots import plot_learning_curves
from tesseral.training.processes import LostProcessError, cluster_environment
from tesseral.training.schedule import Budget, Clock, ValidationPlan
from tesseral.training.trainer import train
from tesseral.training.uncertainty import (
    Errors,
    HeldOut,
    errors_of_folds,
    other_levels,
    with_uncertainty,
)


class FitResult(NamedTuple):
    """Result of a training.

    An entry of the history describes one validation: ``step``, ``elapsed`` (s), ``loss`` and
    errors by name, such as ``forces_mae`` (meV/Å) and ``energy_per_atom_rmse`` (meV/atom).
    """

    model: Path  # the model file
    directory: Path  # folder of logs and checkpoints
    best: dict[str, Any]  # entry of the history with the smallest validation loss
    history: list[dict[str, Any]]
    signal: int | None  # signal that stopped the training early


class _Trained(NamedTuple):
    """One training, with its data and its module."""

    result: FitResult
    data: FitData
    module: PotentialModule
    first: bool  # whether this is the only process, or the one that writes


def fit(
    config: FitConfig,
    console: Console | None = None,
    tell: Callable[[str], object] | None = None,
) -> FitResult:
    """Train a potential and write it to ``config.output``.

    With ``config.data.folds`` or ``config.refit`` this is the last of several trainings, on all
    structures; its errors are those of the others on what was held out from them.

    Args:
        config: data, model, options of the training, and output.
        console: console for progress and results; silent if None.
        tell: function called with the last message of a process that must end itself because
            another one was lost. Default: write the message to stderr.

    Returns:
        The files and the errors at each validation, meV/atom, meV/Å and GPa.

    Raises:
        FileNotFoundError: the data or the checkpoint do not exist.
        ValueError: something in the configuration, the data or the checkpoint does not fit.
        DivergenceError: the loss or its gradient was not finite; the model file contains the last
            good weights.
        LostProcessError: another process of the training has ended or does not respond; the last
            checkpoint is unchanged.
        OSError: a file cannot be written; the message names the model and the checkpoint kept.
    """
    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError(
            f"`trainer.accelerator` is gpu, but PyTorch {torch.__version__} finds no GPU here; use "
            "auto or cpu, or install a PyTorch for this GPU and its driver"
        )
    check_loggers(config.trainer)
    config = chosen_for(config, uses_gpu(config.trainer))
    if config.refits:
        return _fit_folds(config, console, tell)
    try:
        trained = _train(config, console, tell)
    except CompleteError as complete:
        return _only_uncertainty(config, complete, console, None)
    result, data = trained.result, trained.data
    if trained.first and result.history:
        _add_uncertainty(result.model, data, data.validation_dataset, console)
    if trained.first and console is not None:
        _closing(trained, console)
    return result


def _only_uncertainty(
    config: FitConfig,
    complete: CompleteError,
    console: Console | None,
    folds: Sequence[HeldOut] | None,
) -> FitResult:
    """What is left of a training that was interrupted after its last step.

    Args:
        config: its options.
        complete: the error that its last checkpoint is of its end.
        console: console for progress; silent if None.
        folds: what the trainings before it held out, if it is one on all structures.

    Raises:
        CompleteError: nothing is left, or the model cannot know its uncertainty.
    """
    model, state = Path(config.output), complete.state
    if not model.is_file():
        raise complete
    card = read_card(model)
    if card.uncertainty or card.training.get("steps") != state["best"].get("step"):
        raise complete
    if cluster_environment(config.trainer).global_rank() == 0:
        split = _everything(folds) if folds else None
        data = FitData(config.data, card.config.cutoff, card.elements, split)
        data.setup("fit")
        errors = errors_of_folds(folds) if folds else data.validation_dataset
        if not _add_uncertainty(model, data, errors, console):
            raise complete
    return FitResult(model, config.run_directory, state["best"], state["history"], None)


def _fit_folds(
    config: FitConfig, console: Console | None, tell: Callable[[str], object] | None
) -> FitResult:
    """Train on all folds, then on all structures; see ``fit``."""
    parts = parts_of(config.data)
    begun = None if config.ckpt_path is None else fold_config(config, 0).run_directory / "last.ckpt"
    _show_moved(prepare_folders(config.run_directory, Path(config.output), begun), console)
    if console is not None and config.data.folds:
        text = f"{len(parts)} folds, then a training on all structures; limits are those of each"
        console.print(text, highlight=False, soft_wrap=True)
    histories = []
    for number, part in enumerate(parts):
        own = fold_config(config, number)
        history = read_fold(own)
        if history is None:
            try:
                trained = _train(own, console, tell, part)
            except CompleteError as complete:  # it ended before it was recorded
                if not Path(own.output).is_file():
                    raise
                history = complete.state["history"]
                write_fold(own, history)
            else:
                history, ended = trained.result.history, trained.module.progress >= 1.0
                if ended:
                    write_fold(own, history)
                if not ended or trained.result.signal is not None:
                    return trained.result._replace(model=Path(config.output))
        _tell_fold(part.title, history, console)
        histories.append(history)
    folds = held_out(config, parts)
    errors = held_out_errors(folds)
    write_structures(config.run_directory / STRUCTURES, errors)
    steps, last = best_length(histories)
    record: dict[str, Any] = {"errors from": "validation structures of an earlier training"}
    if config.data.folds:
        record["errors from"] = f"all structures, held out once in {len(parts)} folds"
        record["mean and deviation of folds"] = errors.spread
    if console is not None:
        console.print(error_table(errors.summary, "errors of held-out structures"))
        if config.data.folds:
            console.print(spread_line(errors.spread, len(folds)), highlight=False, soft_wrap=True)
    final = Final(steps, last, errors.summary, record)
    part = Part("all structures", _everything(folds), final=final)
    resumes = config.ckpt_path is not None and (config.run_directory / "last.ckpt").exists()
    config = replace(config, ckpt_path="last" if resumes else None)
    try:
        trained = _train(config, console, tell, part)
    except CompleteError as complete:
        return _only_uncertainty(config, complete, console, folds)
    result = trained.result
    if trained.module.global_step >= last:
        _add_uncertainty(result.model, trained.data, errors_of_folds(folds), console)
        if console is not None:
            console.print(
                f"{trained.module.global_step} steps on all structures in "
                f"{duration(trained.module.clock.elapsed)}; the model is {result.model}",
                highlight=False,
                soft_wrap=True,
            )
    return result


def _everything(folds: Sequence[HeldOut]) -> Split:
    """All structures of the folds, to train on."""
    rows = np.arange(len(folds[0].train.store))
    return Split(rows, rows[:0], "all structures are trained on")


def _train(
    config: FitConfig,
    console: Console | None,
    tell: Callable[[str], object] | None,
    part: Part | None = None,
) -> _Trained:
    """One training, on the data of the configuration or a part of them."""
    final = None if part is None else part.final
    environment = cluster_environment(config.trainer)
    first = environment.global_rank() == 0
    console = console if first else None
    _seed(config.seed)
    trained: Trained | None = None
    known: tuple[int, ...] = ()
    if config.init_from is not None:
        trained = open_initial(config.init_from, config.model, config.optimization.dtype)
        known = trained.card.elements
        config = replace(config, model=trained.card.config)
    data = FitData(config.data, config.model.cutoff, known, part and part.split)
    data.setup("fit")
    if first and part is None:  # only now, so that wrong data do not move a training aside
        moved = prepare_folders(config.run_directory, Path(config.output), config.checkpoint)
        _show_moved(moved, console)
    elif part is not None:
        make_folder(config.run_directory)
    card, potential, lines = start(
        data,
        config.model,
        trained,
        dtype=config.optimization.dtype,
        ops=config.trainer.ops,
        short_range=config.short_range,
    )
    del trained  # its weights have been copied
    module = _make_module(config, data, potential, final)
    budget = module.budget if final is None else Budget(steps=final.last)
    identity = _identity(config, data)
    check_checkpoint(config.checkpoint, identity, budget)
    run = FitRun(
        data=data,
        directory=config.run_directory,
        identity=identity,
        plan=ValidationPlan(config.trainer.validate_every, budget),
        display=FitDisplay(
            console,
            live=config.trainer.enable_progress_bar,
            world_size=config.trainer.ranks,
            kind="validation" if final is None else "training",
        ),
        export=partial(_write_model, config, data, card, module, final),
        log_every=config.trainer.log_every_n_steps,
        known_errors=final and final.errors,
        trained=config.init_from is not None,
    )
    if console is not None:
        texts = [] if part is None else [_part_opening(part)]
        if part is None or part.first:
            texts += [_opening(config, data, module), *lines]
        for text in texts:
            console.print(text, highlight=False, soft_wrap=True)
        if part is None or part.first:
            _show_findings(config.data, config.model.cutoff, console)
    curves = config.run_directory / "learning_curves.png"
    try:
        with open_loggers(config, first) as loggers:
            train(
                run,
                module,
                environment,
                config.trainer,
                loggers=loggers,
                checkpoint=config.checkpoint,
                output=config.output,
                tell=tell,
            )
    except LostProcessError:
        raise  # at once: the parent of this process may be about to end it
    except BaseException:
        if first and run.history:
            with suppress(OSError):  # the disk may be full, which the first error says
                plot_learning_curves(run.history, curves)
        raise
    result = FitResult(Path(config.output), config.run_directory, run.best, run.history, run.signal)
    if first and run.history:
        try:
            plot_learning_curves(run.history, curves)
        except OSError as error:
            raise type(error)(f"{error}; the model {result.model} is complete") from error
    return _Trained(result, data, module, first)


def _show_moved(moved: list[Path], console: Console | None) -> None:
    """Say where an earlier training is."""
    if moved and console is not None:
        places = " and ".join(str(path) for path in moved)
        console.print(f"an earlier training was moved to {places}", soft_wrap=True)


def _tell_fold(title: str, history: list[dict[str, Any]], console: Console | None) -> None:
    """Show the best validation of a fold."""
    if console is not None:
        best = min(history, key=lambda entry: entry["loss"])
        console.print(
            f"{title}: {validation_errors(best)} at step {best['step']} of {history[-1]['step']}",
            highlight=False,
            soft_wrap=True,
        )


def _seed(seed: int) -> None:
    """Seed the random numbers identically in every run and on every rank."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _make_module(
    config: FitConfig, data: FitData, potential: MessagePassing, final: Final | None
) -> PotentialModule:
    """Lightning module that trains a potential."""
    steps = [float(config.trainer.max_steps or math.inf)]
    if config.trainer.max_epochs is not None:
        steps.append(config.trainer.max_epochs * data.steps_per_epoch(config.trainer.ranks))
    budget = Budget(steps=min(steps), seconds=config.trainer.seconds)
    return PotentialModule(
        potential,
        loss=config.loss,
        optimization=config.optimization,
        budget=budget if final is None else Budget(steps=final.steps),
        force_rms=data.statistics.force_rms,
        clock=Clock(config.trainer.clock),
        seed=config.seed,
    )


def _identity(config: FitConfig, data: FitData) -> dict[str, Any]:
    """Properties that a checkpoint must share with the training that resumes from it."""
    return {
        "model": config_to_values(config.model),
        "dtype": config.optimization.dtype,
        "elements": list(data.elements),
        "theories": list(data.theories),
        "training data": data.summary()["train"]["content_hash"],
        "training structures": data.statistics.n_structures,
        "split": data.summary()["split"],
    }


def _write_model(
    config: FitConfig,
    data: FitData,
    card: ModelCard,
    module: PotentialModule,
    final: Final | None,
    weights: dict[str, Tensor],
    best: dict[str, Any],
) -> None:
    """Write the model file, with a card that describes the training.

    Args:
        config: configuration of the training.
        data: data module, already set up.
        card: card of the untrained potential.
        module: training module, for the device and the number of processes.
        final: of a training on all structures.
        weights: weights of the averaged potential.
        best: entry of the history that belongs to the weights, with its ``errors``.
    """
    settings = {
        f"{part}.{name}": value
        for part in ("loss", "optimization", "data")
        for name, value in asdict(getattr(config, part)).items()
        if value is not None and name not in ("train", "validation", "isolated_energies")
    }
    training = {
        "data": data.summary(),
        **({} if final is None else final.record),
        "settings": settings,
        "seed": config.seed,
        **({"started from": config.init_from} if config.init_from else {}),
        "steps": best["step"],
        "epochs": best["step"] / data.steps_per_epoch(config.trainer.ranks),
        "seconds": best["elapsed"],
        "machine": machine(module.device),
        "processes": module.trainer.world_size,
        "lightning": lightning.__version__,
    }
    card = replace(card, training=training, errors={"validation": best["errors"]})
    made = []
    for number, theory in enumerate(data.theories or ("",)):
        own = one_level(weights, len(card.elements), number)
        energies = tuple(own["scale.reference_energies"].tolist())
        card = replace(card, level=theory, reference_energies=energies)
        potential = build_potential(card)
        potential.load_state_dict(own)
        made.append((potential, card))
    save_model(config.output, *made[0], made[1:])


def _add_uncertainty(
    path: Path, data: FitData, validation: GraphDataset | Errors, console: Console | None
) -> bool:
    """Add the uncertainty to a model file, and show its calibration; whether it was possible."""
    potential, card = load_model(path)
    train = data.train_dataset
    if data.theories:
        train = GraphDataset(train.store, data.target_rows, train.elements, train.cutoff)
    with progress_line(console, "calibrating the uncertainty") as bar:
        try:
            potential, card = with_uncertainty(potential, card, train, validation, bar)
        except ValueError as reason:
            known, line = False, f"the model does not know its uncertainty: {reason}"
        else:
            known = True
            save_model(path, potential, card, other_levels(path))
            line = uncertainty_line(card.uncertainty)
    if console is not None:
        console.print(line, highlight=False, soft_wrap=True)
    return known


def _part_opening(part: Part) -> str:
    """Title of one of several trainings."""
    train, held_out = len(part.split.train), len(part.split.validation)
    if part.final is None:
        return f"\n{part.title}: {train} structures to train on, {held_out} held out"
    return (
        f"\n{part.title}: {train} to train on; {part.final.last} of {part.final.steps} steps, "
        "where the held-out errors were lowest"
    )


def _opening(config: FitConfig, data: FitData, module: PotentialModule) -> str:
    """Summary of the model, the data and the limits before the training."""
    statistics = data.statistics
    summary = data.summary()
    weights = sum(parameter.numel() for parameter in module.potential.parameters())
    limits = []
    if math.isfinite(module.budget.steps):
        limits.append(f"{module.budget.steps:.0f} steps")
    if math.isfinite(module.budget.seconds):
        limits.append(duration(module.budget.seconds))
    validation = summary["validation"]["structures"]
    lines = [
        f"{statistics.n_structures} structures with {statistics.n_atoms} atoms of "
        f"{' '.join(summary['elements'])} to train on, {validation} to validate",
        f"validation structures {data.split_reason}",
        f"force RMS {statistics.force_rms:.3g} eV/Å, {statistics.mean_neighbors:.3g} neighbours "
        f"within {config.model.cutoff:g} Å",
        f"{weights:,} weights in {config.optimization.dtype}, "
        f"{data.steps_per_epoch(config.trainer.ranks)} steps an epoch, at most "
        f"{' or '.join(limits)}",
        *([batch_line(config)] if uses_gpu(config.trainer) else []),
        f"logs and checkpoints in {config.run_directory}",
    ]
    return "\n".join(lines)


def _show_findings(config: DataConfig, cutoff: float, console: Console) -> None:
    """Show the worst findings of a short check of the data."""
    train, validation = config.train, config.validation
    findings = quick_check(
        open_store(train),
        None if validation is None else open_store(validation),
        cutoff,
    )
    if config.theory is not None:  # several theories are intended
        findings = [finding for finding in findings if finding.check != "theory"]
    for line in short_form(findings, train):
        console.print(line, highlight=False, soft_wrap=True)


def _closing(trained: _Trained, console: Console) -> None:
    """Show the errors of the best weights, the duration, and how to resume."""
    result, module = trained.result, trained.module
    best = result.best
    console.print(
        error_table(best["errors"], f"validation errors at step {best['step']}, the best")
    )
    elapsed = duration(module.clock.elapsed)
    console.print(
        f"{module.global_step} steps in {elapsed}; the model is {result.model}",
        highlight=False,
        soft_wrap=True,
    )
