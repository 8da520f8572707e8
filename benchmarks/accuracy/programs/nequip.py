"""Training of NequIP with nequip-train."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from benchmarks.accuracy.clock import BEGIN, VALIDATION
from benchmarks.accuracy.curves import Curve, Point
from benchmarks.accuracy.process import read_stamped
from benchmarks.accuracy.programs import LOG, Task, merge
from benchmarks.peers.environments import CONFIGS, Peers

METRICS = "val0_epoch/"


class Nequip:
    """l_max 1, 32 features, 4 layers, cosine decay of the learning rate."""

    name = "NequIP"
    calculator = "nequip"
    counts_epochs = True

    def __init__(self, peers: Peers) -> None:
        """Store the path of the environment."""
        self.peers = peers
        self.python = peers.program("nequip", "python")

    def settings(self, task: Task) -> dict[str, Any]:
        """The configuration of benchmarks/peers for these data and this time."""
        base, model = (
            yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("base", "nequip")
        )
        settings = merge(base, model)
        del settings["defaults"]
        terms = ["total_energy", "forces", *["stress"] * task.recipe.stress]
        kind = "EnergyForceStress" if task.recipe.stress else "EnergyForce"
        metrics = ["per_atom_energy_mae", "forces_mae", *["stress_mae"] * task.recipe.stress]
        limit = duration(task.limit) if math.isfinite(task.limit) else None
        settings = merge(
            settings,
            {
                "model_type_names": list(task.files.elements),
                "epochs": task.epochs,
                "batch": 5,
                "data": {
                    "train_file_path": str(task.files.fit),
                    "val_file_path": str(task.files.validation),
                },
                "trainer": {
                    "max_time": limit,
                    "num_sanity_val_steps": 0,
                },
                "training_module": {
                    "loss": {
                        "_target_": f"nequip.train.{kind}Loss",
                        "coeffs": dict.fromkeys(terms, 1.0),
                    },
                    "lr_scheduler": {
                        "scheduler": {
                            "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR",
                            "T_max": task.epochs,
                            "eta_min": 1e-4,
                        },
                        "interval": "epoch",
                        "frequency": 1,
                    },
                },
            },
        )
        settings["training_module"]["val_metrics"] = {
            "_target_": f"nequip.train.{kind}Metrics",
            "coeffs": dict.fromkeys(metrics, 1.0),
        }
        settings["trainer"]["callbacks"].append({"_target_": "benchmarks.accuracy.clock.Clock"})
        # With isolated atoms as per_type_energy_shifts it must learn the whole binding energy, 4 eV
        # per atom: AcAc errors were 1.5 (forces) to 3 times (energy) those with the mean energy.
        return merge(settings, task.recipe.peers.get(self.name, {}))

    def command(self, task: Task) -> list[str]:
        """Command; all settings are in a file."""
        path = task.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.settings(task)), encoding="utf-8")
        words = ["-cp", str(task.folder), "-cn", "config", f"hydra.run.dir={task.folder}"]
        return [self.peers.program("nequip", "nequip-train"), *words]

    def begins(self, line: str) -> bool:
        """Line printed by ``clock`` at the start."""
        return line.startswith(BEGIN)

    def ends(self, line: str) -> bool:
        """Never; no long work follows the training."""
        return False

    def curve(self, folder: Path) -> Curve:
        """Validations printed by ``clock``."""
        curve: Curve = []
        start = None
        for seconds, text in read_stamped(folder / LOG):
            if self.begins(text):
                start = seconds
            elif start is not None and text.startswith(VALIDATION):
                found = json.loads(text.removeprefix(VALIDATION))
                energy, forces = (
                    1e3 * found[METRICS + name] for name in ("per_atom_energy_mae", "forces_mae")
                )
                curve.append(Point(seconds - start, len(curve) + 1, energy, forces))
        return curve

    def model(self, folder: Path) -> Path:
        """The model of the best validation."""
        return folder / "best.ckpt"

    def rescue(self, task: Task) -> None:
        """Not needed; the program stops at the limit."""


def duration(seconds: float) -> str:
    """Days, hours, minutes and seconds in the format of Lightning."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24:02}:{hours % 24:02}:{minutes:02}:{rest:02}"
