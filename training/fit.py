"""`train-potential fit`: from a configuration to a model file."""

from __future__ import annotations

import inspect
import logging
import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch.nn.parallel import DistributedDataParallel

from tesseral.potentials.message_passing import MessagePassing
from tesseral.training.checkpoints import check_checkpoint, prepare_folders
from tesseral.training.config import FitConfig, parse_duration
from tesseral.training.display import FitDisplay, duration, error_table
from tesseral.training.exporter import Exporter
from tesseral.training.module import DivergenceError, PotentialModule
from tesseral.training.plots import plot_learning_curves
from tesseral.training.processes import (
    LostProcessError,
    Watch,
    cluster_environment,
    is_lost_contact,
    start_children,
)
from tesseral.training.run import BAD_BATCH, FitRun
from tesseral.training.schedule import Budget, ValidationPlan
from tesseral.training.starting import known_elements, model_to_train, start
from tesseral.training.stream import FitData


class FitResult(NamedTuple):
    """How a training ended."""

    model: Path
    directory: Path
    best: dict[str, Any]  # entry of the history with the smallest validation loss
    history: list[dict[str, Any]]
    signal: int | None  # that stopped it early


def fit(config: FitConfig, console: Console | None = None) -> FitResult:
    """Train a potential and write it to ``config.output``.

    Args:
        config: everything.
        console: where to report; silent if None.

    Raises:
        FileNotFoundError: there are no such data or checkpoint.
        ValueError: something in the configuration, the data or the checkpoint does not fit.
        DivergenceError: the loss or its gradient was not finite; the model file holds the last
            good weights.
        LostProcessError: another process of the training has ended or does not answer; the last
            checkpoint is as it was.
    """
    environment = cluster_environment(config.trainer)
    first = environment.global_rank() == 0
    console = console if first else None
    _seed(config.seed)
    config = model_to_train(config)
    data = FitData(config.data, config.model.cutoff, known_elements(config))
    data.setup("fit")
    if first:  # only now, since wrong data must not move an earlier training aside
        prepare_folders(config, console)
    card, potential, lines = start(config, data)
    module = _make_module(config, data, potential)
    identity = _identity(config, data)
    check_checkpoint(config.checkpoint, identity, module.budget)
    run = FitRun(
        data=data,
        directory=config.run_directory,
        identity=identity,
        plan=ValidationPlan(config.trainer.validate_every, module.budget),
        display=FitDisplay(
            console,
            live=config.trainer.enable_progress_bar,
            world_size=config.trainer.ranks,
        ),
        export=Exporter(config, data, card, module),
        log_every=config.trainer.log_every_n_steps,
    )
    if console is not None:
        for text in (_opening(config, data, module), *lines):
            console.print(text, highlight=False, soft_wrap=True)
    lost = False
    try:
        _train(config, run, module, environment)
    except LostProcessError:
        lost = True  # to be told at once: who started this process may be about to end it
        raise
    finally:
        if first and run.history and not lost:
            plot_learning_curves(run.history, config.run_directory / "learning_curves.png")
    result = FitResult(Path(config.output), config.run_directory, run.best, run.history, run.signal)
    if console is not None:
        _closing(result, module, console)
    return result


def _train(
    config: FitConfig, run: FitRun, module: PotentialModule, environment: ClusterEnvironment
) -> None:
    """Train on all processes, and say what ended it early."""
    rank = environment.global_rank()
    speaker = f"process {rank} of {config.trainer.ranks}: " if rank > 0 else ""

    def lost(what: str) -> str:
        return f"{speaker}{what} at step {module.global_step}; {run.how_to_resume()}"

    children = start_children(environment, config.trainer)
    try:
        with run.signals(module), Watch(environment, children, lost) as watch, _quiet_lightning():
            trainer = _make_trainer(config, run, environment)
            try:
                trainer.fit(
                    module, datamodule=run.data, ckpt_path=config.checkpoint, weights_only=True
                )
            except RuntimeError as error:
                if not is_lost_contact(error):
                    raise
                what = watch.explain(error, config.trainer.timeout)
                raise LostProcessError(lost(what), watch.told) from None
    except DivergenceError as error:
        kept = f"{config.output} holds the weights of step {run.best['step']}" if run.best else ""
        raise DivergenceError(
            f"{error}; they are in {config.run_directory / BAD_BATCH}. "
            f"{kept or 'There is no good model yet'}. Look at these structures, or lower "
            "--optimization.learning_rate",
            error.rows,
        ) from None


def _seed(seed: int) -> None:
    """The same random numbers in every run and on every rank."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _make_module(config: FitConfig, data: FitData, potential: MessagePassing) -> PotentialModule:
    """A potential with its training."""
    steps = [float(config.trainer.max_steps or math.inf)]
    if config.trainer.max_epochs is not None:
        steps.append(config.trainer.max_epochs * data.steps_per_epoch(config.trainer.ranks))
    return PotentialModule(
        potential,
        loss=config.loss,
        optimization=config.optimization,
        budget=Budget(steps=min(steps), seconds=config.trainer.seconds),
        force_rms=data.statistics.force_rms,
    )


def _make_trainer(
    config: FitConfig, run: FitRun, environment: ClusterEnvironment
) -> lightning.Trainer:
    """Lightning's loop, with everything off that ``FitRun`` does."""
    settings, directory = config.trainer, config.run_directory
    accelerator = settings.accelerator
    if accelerator == "auto":  # Lightning would take Apple's GPUs, which have no float64
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    strategy: Any = "auto"
    if settings.strategy == "ddp" or settings.ranks > 1:
        # The buffers are constants; newer PyTorch has another name for not sending them around.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        settings_of_ddp: dict[str, Any] = {name: False}
        strategy = DDPStrategy(
            timeout=timedelta(seconds=parse_duration(settings.timeout)), **settings_of_ddp
        )
    loggers: list[Logger] = [
        CSVLogger(directory, name="csv", flush_logs_every_n_steps=1),
        TensorBoardLogger(directory, name="tensorboard"),
    ]
    return lightning.Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=strategy,
        deterministic=settings.deterministic,
        max_epochs=-1,  # the stream of batches has no end; FitRun stops it
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=loggers,
        plugins=[environment],
        callbacks=[run],
        default_root_dir=directory,
        inference_mode=False,
    )


def _identity(config: FitConfig, data: FitData) -> dict[str, Any]:
    """What a checkpoint must have in common with the training that resumes from it."""
    return {
        "model": asdict(config.model),
        "dtype": config.optimization.dtype,
        "elements": list(data.elements),
        "theories": list(data.theories),
        "training data": data.summary()["train"]["content_hash"],
        "training structures": data.statistics.n_structures,
    }


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out advice of Lightning's that does not apply here, and deprecations inside it."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers",
            ".*validation_step",
            ".*LeafSpec",
            "Grad strides do not match bucket view strides",
        ):
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _opening(config: FitConfig, data: FitData, module: PotentialModule) -> str:
    """What is going to be trained, on what, for how long."""
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
        f"force RMS {statistics.force_rms:.3g} eV/Å, {statistics.mean_neighbors:.3g} neighbours "
        f"within {config.model.cutoff:g} Å",
        f"{weights:,} weights in {config.optimization.dtype}, "
        f"{data.steps_per_epoch(config.trainer.ranks)} steps an epoch, at most "
        f"{' or '.join(limits)}",
        f"logs and checkpoints in {config.run_directory}",
    ]
    return "\n".join(lines)


def _closing(result: FitResult, module: PotentialModule, console: Console) -> None:
    """How it ended, and how to go on."""
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
    if result.signal is not None:
        console.print(
            "stopped before the end; to go on, give the same command with --ckpt_path last",
            highlight=False,
            soft_wrap=True,
        )
