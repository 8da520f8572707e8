"""Options of a training: frozen dataclasses whose docstrings are the help of the command."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tesseral.data.loading.datamodule import DataConfig
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.config import PotentialConfig

LossFunction = Literal["mse", "mae", "huber"]
DEFAULT_TIME = "1h"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``90s``, ``10m``, ``1h30m``, ``00:10:00`` or ``00:00:10:00``.

    Raises:
        ValueError: the text is none of these forms, or no time at all.
    """
    text = text.strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = 0.0
    if parts and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    elif re.fullmatch(r"(\d+:){1,3}\d+", text):
        for number, factor in zip(reversed(text.split(":")), (1, 60, 3600, 86400), strict=False):
            seconds += int(number) * factor
    if seconds <= 0:
        raise ValueError(
            f"{text!r} is not a duration; write days:hours:minutes:seconds as in 00:00:10:00, "
            "or 90s, 10m, 1h30m, 2d"
        )
    return seconds


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised: a weighted sum of mean errors of energy, forces and virial or stress.

    Every error is divided by the RMS force of the training set (times 1 Å where it is an energy),
    so that weights near 1 are sensible for any material. Missing labels are left out.

    Args:
        energy_weight: weight of the energy per atom.
        energy_weight_final: weight at the end of training, reached smoothly; energy_weight if not
            given.
        forces_weight: weight of the forces, averaged over all components.
        stress_weight: weight of the stress term, for structures that have a stress label.
        energy: function of the energy error: mse, mae or huber.
        forces: function of the force error: mse, mae or huber.
        stress: function of the stress error: mse, mae or huber.
        stress_target: virial (virial per atom, an energy) or stress (in force RMS/Å²).
        huber_delta: scaled error at which huber turns from quadratic to linear.
    """

    energy_weight: float = 10.0
    energy_weight_final: float | None = None
    forces_weight: float = 1.0
    stress_weight: float = 1.0
    energy: LossFunction = "mse"
    forces: LossFunction = "mse"
    stress: LossFunction = "mse"
    stress_target: Literal["virial", "stress"] = "virial"
    huber_delta: float = 0.1

    def __post_init__(self) -> None:
        """Refuse weights and deltas that make no loss."""
        weights = {
            name: getattr(self, name)
            for name in ("energy_weight", "energy_weight_final", "forces_weight", "stress_weight")
            if getattr(self, name) is not None
        }
        for name, value in weights.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be 0 or more")
        if not any(weights.values()):
            raise ValueError("all weights of the loss are 0; nothing would be trained")
        if not self.huber_delta > 0:
            raise ValueError(f"huber_delta is {self.huber_delta}; it must be positive")


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """How the weights are found.

    Args:
        learning_rate: largest learning rate, reached at the end of the warm-up.
        warmup: part of the training over which the learning rate rises from 0.
        decay_start: part of the training after which the learning rate begins to fall.
        decay: shape of the fall: cosine, linear or none. It ends when the training does.
        final_learning_rate: learning rate at the end, as a part of learning_rate.
        optimizer: soap (Adam in the directions of steepest and flattest curvature) or adam; soap
            takes a third of the steps, each a little longer.
        weight_decay: decoupled from the gradient, as in AdamW.
        relaxed_learning_rate: the same of the broken components of a relaxed potential.
        relaxed_weight_decay: pull of these components to zero, as a part (0 to 1) of the pull of
            their gradients; what batches do not agree on vanishes exactly.
        gradient_clip: largest norm of the gradient; 0 does not clip.
        ema_decay: decay of the moving average of the weights that is validated and exported; 0
            takes the weights themselves.
        part_rates: factors of the learning rate for parts of the potential, by the beginning of
            their weights' names, as in {embedding: 0, layers.0: 0.1}; 0 freezes a part, and the
            longest name that fits counts.
        dtype: of weights and features; energies and geometry are float64 always.
    """

    learning_rate: float = 1e-2
    warmup: float = 0.01
    decay_start: float = 0.0
    decay: Literal["cosine", "linear", "none"] = "cosine"
    final_learning_rate: float = 0.0
    optimizer: Literal["soap", "adam"] = "soap"
    weight_decay: float = 0.0
    relaxed_learning_rate: float = 1e-2
    relaxed_weight_decay: float = 0.4
    gradient_clip: float = 0.3
    ema_decay: float = 0.999
    part_rates: dict[str, float] = field(default_factory=dict)
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("learning_rate", "relaxed_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("warmup", "decay_start", "final_learning_rate", "relaxed_weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be from 0 to below 1")
        for part, factor in self.part_rates.items():
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(f"part_rates has {factor} for {part}; it must be 0 or more")
        for name in ("weight_decay", "gradient_clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long, where, and what is written on the way.

    Args:
        max_time: duration of the training with its validations, as 00:00:10:00 (days to seconds)
            or 90s, 10m, 1h30m. The learning rate reaches its end when the time does. 1h if no
            limit of any kind is given; the limit that is reached first ends the training.
        clock: what max_time counts: wall, or cpu for the processor time of the first process, by
            which trainings on a busy machine can be compared.
        max_epochs: passes over the training data.
        max_steps: updates of the weights.
        accelerator: cpu, gpu, or auto for a GPU where there is one.
        devices: number of processes (CPU) or of GPUs on each node.
        num_nodes: number of machines.
        strategy: ddp for several devices; auto chooses it where it is needed.
        timeout: longest that a process waits for the others before the training ends with an
            error, as in max_time; longer than preparing the data takes.
        ops: fused (compiled kernels, CPU only) or reference (plain PyTorch); auto takes the faster.
        deterministic: refuse operations whose result changes from run to run.
        validate_every: steps between validations; about 20 in the whole training if not given.
        log_every_n_steps: steps between entries of the CSV and TensorBoard logs.
        enable_progress_bar: show a live line in a terminal; plain lines otherwise.
        directory: folder of logs, checkpoints and plots; runs/NAME beside the output NAME if not
            given.
    """

    max_time: str | None = None
    clock: Literal["wall", "cpu"] = "wall"
    max_epochs: int | None = None
    max_steps: int | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    timeout: str = "30m"
    ops: Literal["auto", "fused", "reference"] = "auto"
    deterministic: bool = False
    validate_every: int | None = None
    log_every_n_steps: int = 50
    enable_progress_bar: bool = True
    directory: str | None = None

    def __post_init__(self) -> None:
        """Refuse durations that cannot be read and numbers below 1."""
        if self.max_time is not None:
            parse_duration(self.max_time)
        parse_duration(self.timeout)
        for name in (
            *("max_epochs", "max_steps", "devices", "num_nodes"),
            *("validate_every", "log_every_n_steps"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"trainer.{name} is {value}; it must be 1 or more")

    @property
    def ranks(self) -> int:
        """Number of processes of all nodes."""
        return self.devices * self.num_nodes

    @property
    def seconds(self) -> float:
        """Time limit in seconds; infinite where steps or epochs alone are limited."""
        if self.max_time is not None:
            return parse_duration(self.max_time)
        if self.max_epochs is None and self.max_steps is None:
            return parse_duration(DEFAULT_TIME)
        return math.inf


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Train a potential on a dataset.

    Args:
        data: datasets, batches and splits.
        output: the model file to write, ….safetensors; it is there from the first validation on.
        model: architecture and size, e.g. ``NequIPConfig(channels=16)``.
        loss: what is minimised.
        optimization: how the weights are found.
        trainer: how long, where, and what is written on the way.
        seed: of the initial weights; data.seed is that of the order of the data.
        init_from: model file, or universal, whose architecture and weights the training starts
            from; reference energies are shifted to those of the data, and new elements are added.
        ckpt_path: checkpoint to resume from: last, best, or a file.
    """

    data: DataConfig
    output: str
    model: PotentialConfig = field(default_factory=FacetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = 0
    init_from: str | None = None
    ckpt_path: str | None = None

    def __post_init__(self) -> None:
        """Refuse an output that could not be loaded again."""
        if Path(self.output).suffix != ".safetensors":
            raise ValueError(f"output is {self.output!r}; name it ….safetensors")

    @property
    def run_directory(self) -> Path:
        """Folder of logs, checkpoints and plots."""
        if self.trainer.directory is not None:
            return Path(self.trainer.directory)
        output = Path(self.output)
        return output.parent / "runs" / output.stem

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint file to resume from."""
        if self.ckpt_path is None:
            return None
        if self.ckpt_path in ("last", "best"):
            return self.run_directory / f"{self.ckpt_path}.ckpt"
        return Path(self.ckpt_path)
