"""Training of SevenNet with sevenn train."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import yaml

from benchmarks.accuracy.curves import Curve
from benchmarks.accuracy.process import read_stamped
from benchmarks.accuracy.programs import LOG, NEVER, Task, merge, timed_points
from benchmarks.peers.environments import CONFIGS, Peers

BEGIN = re.compile(r"^Epoch 1/\d+ ")
EPOCH = re.compile(r"Epoch (\d+) elapsed")


class SevenNet:
    """32 channels, l_max 2, 3 layers, cosine decay of the learning rate."""

    name = "SevenNet"
    calculator = "sevennet"
    counts_epochs = True

    def __init__(self, peers: Peers) -> None:
        """Store the path of the environment."""
        self.peers = peers
        self.python = peers.program("sevenn", "python")

    def settings(self, task: Task) -> dict[str, Any]:
        """The configuration of benchmarks/peers for these data and this time."""
        settings: dict[str, Any] = yaml.safe_load((CONFIGS / "sevennet.yaml").read_text())
        train, data = settings["train"], settings["data"]
        train |= {
            "epoch": task.epochs,
            "per_epoch": NEVER,
            "scheduler": "cosineannealinglr",
            "scheduler_param": {"T_max": task.epochs, "eta_min": 1e-4},
        }
        if task.recipe.stress:
            train |= {"is_train_stress": True, "stress_loss_weight": 1e-6}
        data |= {
            "load_trainset_path": [str(task.files.fit)],
            "load_validset_path": [str(task.files.validation)],
        }
        # With isolated atoms as shift it must learn the whole binding energy, 4 eV per atom: AcAc
        # errors were 2 (forces) to 30 times (energy) those with its default, the mean energy.
        return merge(settings, task.recipe.peers.get(self.name, {}))

    def command(self, task: Task) -> list[str]:
        """Command; all settings are in a file."""
        path = task.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.settings(task)), encoding="utf-8")
        return [self.peers.program("sevenn", "sevenn"), "train", str(path), "-s"]

    def begins(self, line: str) -> bool:
        """Header of the first epoch."""
        return BEGIN.match(line) is not None

    def ends(self, line: str) -> bool:
        """Never; no long work follows the training."""
        return False

    def curve(self, folder: Path) -> Curve:
        """Times from the log, errors from the table of the program."""
        table = folder / "lc.csv"
        if not table.exists():
            return []
        with table.open(encoding="utf-8") as file:
            values = {
                int(row["epoch"]): (
                    1e3 * float(row["validset_Energy_MAE"]),
                    1e3 * float(row["validset_Force_MAE"]),
                )
                for row in csv.DictReader(file)
            }
        return timed_points(read_stamped(folder / LOG), self.begins, EPOCH, values, 1)

    def model(self, folder: Path) -> Path:
        """The model of the best validation."""
        return folder / "checkpoint_best.pth"

    def rescue(self, task: Task) -> None:
        """Not needed; the best checkpoint is a model."""
