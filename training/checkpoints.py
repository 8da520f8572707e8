"""The folder of a training, and whether a checkpoint may be resumed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tesseral.deploy.card import config_from_values, config_to_values
from tesseral.training.schedule import Budget


def prepare_folders(directory: Path, output: Path, checkpoint: Path | None) -> Path | None:
    """Make the folders; move an earlier training in the same directory aside.

    Args:
        directory: of logs and checkpoints.
        output: the model file to write.
        checkpoint: to resume from; nothing is moved then.

    Returns:
        Where an earlier training was moved to, if there was one.

    Raises:
        FileNotFoundError: there is no such checkpoint to resume from.
    """
    moved = None
    if checkpoint is not None and not checkpoint.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {checkpoint} to resume from; leave out `ckpt_path` to start "
            "from the beginning"
        )
    if checkpoint is None and (directory / "last.ckpt").exists():
        number = 1
        while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
            number += 1
        moved = directory.rename(aside)
    directory.mkdir(parents=True, exist_ok=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    return moved


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
            "to resume, allow it more with `max_time`, `max_epochs` or `max_steps`"
        )
