"""The folder of a training, and whether a checkpoint may be resumed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tesseral.deploy.card import config_from_values, config_to_values
from tesseral.training.config import FitConfig
from tesseral.training.schedule import Budget


def prepare_folders(config: FitConfig, console: Console | None) -> None:
    """Make the folders; put an earlier training of the same name aside.

    Raises:
        FileNotFoundError: there is no such checkpoint to resume from.
    """
    directory, checkpoint = config.run_directory, config.checkpoint
    if checkpoint is not None and not checkpoint.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {checkpoint} to resume from; leave out `ckpt_path` to start "
            "from the beginning"
        )
    if checkpoint is None and (directory / "last.ckpt").exists():
        number = 1
        while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
            number += 1
        directory.rename(aside)
        if console is not None:
            console.print(f"the earlier training in {directory} was moved to {aside}")
    directory.mkdir(parents=True, exist_ok=True)
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)


def check_checkpoint(path: Path | None, identity: dict[str, Any], budget: Budget) -> None:
    """Refuse a checkpoint of something else, and one whose training is complete.

    Args:
        path: of the checkpoint; None is fine.
        identity: of the training that is to resume from it, see ``FitRun``.
        budget: of the training that is to resume from it.

    Raises:
        ValueError: what does not fit, and what to do.
    """
    if path is None:
        return
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["callbacks"]["FitRun"]
        found, elapsed, step = state["identity"], state["elapsed"], content["global_step"]
        model = config_from_values(found["model"])  # earlier versions wrote other keys
        found = {**found, "model": config_to_values(model)}
    except Exception as error:  # whatever unpickling some other file may lead to
        raise ValueError(
            f"{path} is not a checkpoint of train-potential fit ({type(error).__name__}); give "
            "last, best, or a .ckpt file of an earlier training"
        ) from None
    for name, value in identity.items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} belongs to a training with other {name} ({found.get(name)} there, {value} "
                "here); resume with the same, or leave out `ckpt_path` to start from the beginning"
            )
    if budget.progress(step, elapsed) >= 1.0:
        raise ValueError(
            f"the training of {path} had reached its end after {step} steps and {elapsed:.0f} s; "
            "to resume, allow it more with `trainer.max_time`, max_epochs or max_steps"
        )
