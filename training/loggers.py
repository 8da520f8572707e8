"""Loggers of a training: CSV and TensorBoard, and W&B and MLflow for those who name them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from tesseral.training.config import FitConfig, TrainerConfig

LOCAL = "local"


@contextmanager
def open_loggers(config: FitConfig, first: bool) -> Iterator[list[Logger]]:
    """Loggers that end with the block; nothing is sent anywhere unless the options ask for it.

    Args:
        config: configuration of the training, which W&B and MLflow record.
        first: whether this is the first process of the training, which alone uses W&B and MLflow.
    """
    directory, settings = config.run_directory.absolute(), config.trainer
    loggers: list[Logger] = [
        CSVLogger(directory, name="csv", flush_logs_every_n_steps=1),
        TensorBoardLogger(directory, name="tensorboard"),
    ]
    name, values = Path(config.output).stem, asdict(config)
    wandb = mlflow = None
    if settings.wandb is not None and first:
        wandb = WandbLogger(
            name=name,
            save_dir=directory,
            project=settings.project,
            offline=settings.wandb == "offline",
        )
    if settings.mlflow is not None and first:
        local = settings.mlflow == LOCAL
        mlflow = MLFlowLogger(
            experiment_name=settings.project,
            run_name=name,
            tracking_uri=f"sqlite:///{directory / 'mlflow.db'}" if local else settings.mlflow,
            artifact_location=(directory / "mlflow").as_uri() if local else None,
        )
    loggers += [logger for logger in (wandb, mlflow) if logger is not None]
    for logger in (wandb, mlflow):
        if logger is not None:
            logger.log_hyperparams(values)
    status = "failed"
    try:
        yield loggers
        status = "success"
    finally:
        if mlflow is not None:
            mlflow.finalize(status)
        if wandb is not None:
            wandb.experiment.finish(exit_code=int(status != "success"))


def check_loggers(settings: TrainerConfig) -> None:
    """Reject a logger whose package is not installed.

    Raises:
        ValueError: names the option and the package.
    """
    for name in ("wandb", "mlflow"):
        if getattr(settings, name) is not None and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"`trainer.{name}` is {getattr(settings, name)}, but the package is not installed; "
                f"run pip install 'tesseral[{name}]'"
            )
