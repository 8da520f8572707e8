"""Folder of a training; writing checkpoints, and checks before resuming from one."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from tesseral.deploy.card import config_from_values, config_to_values
from tesseral.files import check_writable, make_folder, one_line, write_whole
from tesseral.training.schedule import Budget


class CompleteError(ValueError):
    """The training of a checkpoint has reached its end.

    Args:
        message: text of the error.
        state: state of the training in the checkpoint, see ``FitRun``.
    """

    def __init__(self, message: str, state: dict[str, Any]) -> None:
        """Keep the state."""
        super().__init__(message)
        self.state = state


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all; the old one stays until the new one is complete."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write a checkpoint; an error names its file."""
        content = io.BytesIO()  # PyTorch may abort the process if it cannot write a file
        try:
            torch.save(checkpoint, content)
        except RuntimeError as error:  # how PyTorch reports that the memory is full
            raise MemoryError(f"{path} cannot be written: {one_line(error)}") from error
        with write_whole(path) as temporary:
            temporary.write_bytes(content.getbuffer())


def prepare_folders(directory: Path, output: Path, checkpoint: Path | None) -> list[Path]:
    """Create the folders; move an earlier training of the same name, and its model, aside.

    Args:
        directory: folder of logs and checkpoints.
        output: the model file to write.
        checkpoint: checkpoint to resume from; if given, nothing is moved.

    Returns:
        New paths of the folder and the model of an earlier training, of those that existed.

    Raises:
        FileNotFoundError: the checkpoint to resume from does not exist.
        OSError: a folder cannot be created or written to.
    """
    check_writable(output)
    if checkpoint is not None and not checkpoint.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {checkpoint} to resume from; leave out `ckpt_path` to start "
            "from the beginning"
        )
    moved = []
    old = [path for path in (directory, output) if _is_earlier(path)]
    if checkpoint is None and old:
        number = 1
        while any(_numbered(path, number).exists() for path in (directory, output)):
            number += 1
        moved = [path.rename(_numbered(path, number)) for path in old]
    make_folder(directory)
    make_folder(output.parent)
    return moved


def _is_earlier(path: Path) -> bool:
    """Whether a path is a model, or a folder with the checkpoint of a training."""
    return path.is_file() or any((path / one).exists() for one in ("last.ckpt", "fold_1"))


def _numbered(path: Path, number: int) -> Path:
    """``runs/m`` and ``m.safetensors`` to ``runs/m.1`` and ``m.1.safetensors``."""
    suffix = ".safetensors" if path.suffix == ".safetensors" else ""
    return path.with_name(f"{path.name.removesuffix(suffix)}.{number}{suffix}")


def check_checkpoint(path: Path | None, identity: dict[str, Any], budget: Budget) -> None:
    """Reject a checkpoint of a different training or of one that is complete.

    Args:
        path: checkpoint file; None passes.
        identity: properties of the training that resumes from it, see ``FitRun``.
        budget: limits of the training that resumes from it.

    Raises:
        CompleteError: the training of the checkpoint has reached its end.
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
        before = found.get(name)
        if before != value:
            there, here = before, value
            if isinstance(value, dict) and isinstance(before, dict):  # only what differs
                keys = [key for key in {**before, **value} if before.get(key) != value.get(key)]
                there = ", ".join(f"{key} {before.get(key)}" for key in keys)
                here = ", ".join(f"{key} {value.get(key)}" for key in keys)
            raise ValueError(
                f"{path} belongs to a training with other {name} ({there} there, {here} "
                "here); resume with the same, or leave out `ckpt_path` to start from the beginning"
            )
    if budget.progress(step, elapsed) >= 1.0:
        raise CompleteError(
            f"the training of {path} had reached its end after {step} steps and {elapsed:.0f} s; "
            "to resume, raise `max_time`, `max_epochs` or `max_steps`",
            state,
        )
