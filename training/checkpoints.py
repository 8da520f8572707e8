"""Folder of a training, and checks before resuming from a checkpoint."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from tesseral.deploy.card import config_from_values, config_to_values
from tesseral.training.schedule import Budget


def prepare_folders(directory: Path, output: Path, checkpoint: Path | None) -> Path | None:
    """Create the folders; move an earlier training in the same directory aside.

    Args:
        directory: folder of logs and checkpoints.
        output: the model file to write.
        checkpoint: checkpoint to resume from; if given, nothing is moved.

    Returns:
        New path of the earlier training, if there was one.

    Raises:
        FileNotFoundError: the checkpoint to resume from does not exist.
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
    """Reject a checkpoint of a different training or of one that is complete.

    Args:
        path: checkpoint file; None passes.
        identity: properties of the training that resumes from it, see ``FitRun``.
        budget: limits of the training that resumes from it.

    Raises:
        ValueError: the checkpoint does not fit; the message says why and what to do.
    """
    if path is None:
        return
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums in it
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} does not match its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["callbacks"]["FitRun"]
        found, elapsed, step = state["identity"], state["elapsed"], content["global_step"]
        model = config_from_values(found["model"])  # earlier versions wrote other keys
        found = {**found, "model": config_to_values(model)}
    except Exception as error:  # unpickling an arbitrary file may raise anything
        raise ValueError(
            f"{path} is not a checkpoint of train-potential fit, or is damaged "
            f"({type(error).__name__}); give last, best, or a .ckpt file of an earlier training"
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
            "to resume, raise `max_time`, `max_epochs` or `max_steps`"
        )
