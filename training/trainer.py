"""Lightning Trainer of `fit`, and its early ends."""

from __future__ import annotations

import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from tesseral.files import FULL
from tesseral.training.callback import BAD_BATCH, FitRun
from tesseral.training.checkpoints import WholeCheckpoints
from tesseral.training.config import TrainerConfig
from tesseral.training.device import uses_gpu
from tesseral.training.duration import parse_duration
from tesseral.training.module import DivergenceError, PotentialModule
from tesseral.training.processes import (
    LostProcessError,
    Watch,
    is_lost_contact,
    start_children,
)


def train(
    run: FitRun,
    module: PotentialModule,
    environment: ClusterEnvironment,
    settings: TrainerConfig,
    *,
    loggers: list[Logger],
    checkpoint: Path | None,
    output: str,
    tell: Callable[[str], object] | None = None,
) -> None:
    """Train on all processes.

    Args:
        run: callback of the training, with the data.
        module: training module.
        environment: cluster environment of this process.
        settings: options of the trainer.
        loggers: loggers of this process.
        checkpoint: checkpoint to resume from.
        output: model file that ``run`` writes, for messages.
        tell: function called with the last message of a process that ends itself, see `Watch`.

    Raises:
        DivergenceError: the loss or its gradient was not finite; the message names the files kept.
        LostProcessError: another process has ended or does not respond; the message says how to
            resume.
        OSError: a file cannot be written; the message names the model and the checkpoint kept.
    """
    rank = environment.global_rank()
    speaker = f"process {rank} of {settings.ranks}: " if rank > 0 else ""

    def lost(what: str) -> str:
        return f"{speaker}{what} at step {module.global_step}; {run.how_to_resume()}"

    children = start_children(environment, settings)
    try:
        watching = Watch(environment, children, lost, tell)
        with run.signals(module), watching as watch, _quiet_lightning():
            trainer = _make_trainer(settings, run, environment, loggers)
            try:
                trainer.fit(module, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
            except SystemExit:  # Lightning's, after a KeyboardInterrupt
                raise KeyboardInterrupt from None
            except RuntimeError as error:
                if not is_lost_contact(error):
                    raise
                what = watch.explain(error, settings.timeout)
                raise LostProcessError(lost(what), watch.told) from None
    except OSError as error:
        what = str(error)
        if error.errno in FULL and error.filename is None:  # of the loggers, which do not say
            reason = (error.strerror or what).lower()
            what = f"the logs in {run.directory} cannot be written: {reason}"
        kept = f"{output} has the weights of step {run.best['step']}" if run.best else ""
        raise type(error)(
            f"{what}; {kept or 'no model was written'}; {run.how_to_resume()}"
        ) from error
    except DivergenceError as error:
        kept = f"{output} has the weights of step {run.best['step']}" if run.best else ""
        raise DivergenceError(
            f"{error}; they are in {run.directory / BAD_BATCH}. "
            f"{kept or 'There is no good model yet'}. Look at these structures, or lower "
            "`optimization.learning_rate`",
            error.rows,
        ) from None


def _make_trainer(
    settings: TrainerConfig,
    run: FitRun,
    environment: ClusterEnvironment,
    loggers: list[Logger],
) -> lightning.Trainer:
    """Create Lightning's Trainer, without the features that ``FitRun`` provides."""
    strategy: Any = "auto"
    if settings.strategy == "ddp" or settings.ranks > 1:
        # The buffers are constants; newer PyTorch renamed the option that disables broadcasting.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        settings_of_ddp: dict[str, Any] = {name: False}
        strategy = DDPStrategy(
            timeout=timedelta(seconds=parse_duration(settings.timeout)), **settings_of_ddp
        )
    return lightning.Trainer(
        accelerator="gpu" if uses_gpu(settings) else "cpu",
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
        plugins=[environment, WholeCheckpoints()],
        callbacks=[run],
        default_root_dir=run.directory,
        inference_mode=False,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Suppress hints of Lightning that do not apply here, and its internal deprecations.

    Also the traceback of the thread that writes TensorBoard's logs: its error ends the training.
    """
    hook = threading.excepthook

    def quiet(failed: threading.ExceptHookArgs) -> None:
        ours = type(failed.thread).__module__.startswith("tensorboard")
        if not (ours and isinstance(failed.exc_value, OSError)):
            hook(failed)

    threading.excepthook = quiet
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
            threading.excepthook = hook
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
