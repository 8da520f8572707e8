"""Options of a training with a teacher, read without importing PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tesseral.training.duration import parse_duration


@dataclass(frozen=True, kw_only=True)
class TeachConfig:
    """Train a fast potential on labels, taught by a universal potential that learns them first.

    Args:
        train: training set: dataset file made by ``train-potential data import``.
        validation: validation set: dataset file. By default a tenth of ``train`` is split off, as
            in ``train-potential fit``.
        structures: file of further structures without labels, such as surfaces or defects that
            ``train`` lacks, in any format ASE reads: all frames, or those selected by FILE@INDEX;
            several, each with its own option. The teacher alone labels strained and rattled copies.
        teacher: model that is fine-tuned on the labels: a model file, universal, or a name that
            train-potential universal lists.
        output: folder for the results. Default: TRAIN-taught. Repeating the command resumes an
            interrupted run.
        time: time for everything, as 90s, 30m, 1h30m; more time gives smaller errors.
        clock: clock of the time: wall, or cpu (CPU time of the trainings), for a machine that is
            busy with other work.
        copies: number of structures around each training structure that the teachers label.
            Default: as many as fit into a tenth of the time, 16 at most.
        size: size of the potential: default; fast, as with configs/fast.yaml; or large, with twice
            the channels, whose errors are smaller and whose steps take 1.5 to 1.8 times as long.
        seed: random seed of weights, dynamics and split.
        device: cpu, cuda, … for dynamics and labels. Default: a GPU if available.

    Raises:
        ValueError: a value is out of range.
    """

    train: str
    validation: str | None = None
    structures: list[str] = field(default_factory=list)
    teacher: str = "universal"
    output: str | None = None
    time: str = "1h"
    clock: Literal["wall", "cpu"] = "wall"
    copies: int | None = None
    size: Literal["fast", "default", "large"] = "default"
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        parse_duration(self.time)
        if self.copies is not None and self.copies < 1:
            raise ValueError(f"`copies` is {self.copies}; it must be 1 or more")

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return Path(self.output or f"{Path(self.train).stem}-taught")
