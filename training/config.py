"""Options of a training: frozen dataclasses whose docstrings are the help of the command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tesseral.data.loading.config import DataConfig
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.config import PotentialConfig
from tesseral.training.duration import parse_duration

LossFunction = Literal["mse", "mae", "huber"]
DEFAULT_TIME = "1h"


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Loss: a weighted sum of mean errors of energy, forces and virial or stress.

    Every error is divided by the RMS force of the training set (times 1 Å for energies), so that
    weights near 1 are sensible for any material. Missing labels are left out.

    Args:
        energy_weight: weight of the energy per atom.
        energy_weight_final: energy weight at the end of training, reached smoothly. Default:
            energy_weight.
        forces_weight: weight of the forces, averaged over all components.
        stress_weight: weight of the stress term, for structures that have a stress label.
        energy: function of the energy error: mse, mae or huber.
        forces: function of the force error: mse, mae or huber.
        stress: function of the stress error: mse, mae or huber.
        stress_target: quantity in the stress term: virial (virial per atom, an energy) or stress
            (in units of force RMS / Å²).
        huber_delta: scaled error at which the Huber loss changes from quadratic to linear.
        symmetry_weight: weight of the squared change of the forces when structures are rotated or
            reflected at random, for potentials that need not have this symmetry. Costs a second
            evaluation in each step.
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
    symmetry_weight: float = 0.0

    def __post_init__(self) -> None:
        """Reject invalid weights and an invalid huber_delta."""
        weights = {
            name: getattr(self, name)
            for name in ("energy_weight", "energy_weight_final", "forces_weight", "stress_weight")
            if getattr(self, name) is not None
        }
        for name, value in weights.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"`{name}` is {value}; it must be 0 or more")
        if not any(weights.values()):
            raise ValueError("all weights of the loss are 0; nothing would be trained")
        if not (math.isfinite(self.symmetry_weight) and self.symmetry_weight >= 0):
            raise ValueError(f"`symmetry_weight` is {self.symmetry_weight}; it must be 0 or more")
        if not self.huber_delta > 0:
            raise ValueError(f"`huber_delta` is {self.huber_delta}; it must be positive")


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """Optimisation of the weights.

    Args:
        learning_rate: maximum learning rate, reached at the end of the warm-up. Default: 0.01;
            twice that on a GPU with its four times larger batches (data.batch_edges).
        warmup: fraction of the training over which the learning rate rises from 0.
        decay_start: fraction of the training after which the learning rate begins to fall.
        decay: shape of the learning-rate decay: cosine, linear or none. It ends with the training.
        final_learning_rate: learning rate at the end, as a fraction of learning_rate.
        optimizer: soap (Adam in the eigenbasis of the gradient covariances) or adam. soap needs
            about a third of the steps; each takes slightly longer.
        weight_decay: weight decay, decoupled from the gradient as in AdamW.
        relaxed_learning_rate: learning rate of the symmetry-breaking components of a relaxed
            potential.
        relaxed_weight_decay: shrinkage of these components, as a fraction (0 to 1) of the pull of
            their gradients. Components on which batches disagree stay exactly zero.
        relaxed_shrinkage: threshold (by a constant amount, as described above) or proportional, the
            quadratic penalty of soft equivariance, with which nothing becomes exactly zero.
        gradient_clip: maximum norm of the gradient; 0 disables clipping.
        ema_decay: decay of the moving average of the weights, which is validated and exported; 0
            uses the weights themselves.
        part_rates: learning-rate factors for parts of the potential, by prefix of the weights'
            names, for example {embedding: 0, layers.0: 0.1}; * stands for any text, as in
            layers.*.convolution. 0 freezes a part; the longest matching prefix applies.
        dtype: precision of weights and features; energies and geometry are always float64.
    """

    learning_rate: float | None = None
    warmup: float = 0.01
    decay_start: float = 0.0
    decay: Literal["cosine", "linear", "none"] = "cosine"
    final_learning_rate: float = 0.0
    optimizer: Literal["soap", "adam"] = "soap"
    weight_decay: float = 0.0
    relaxed_learning_rate: float = 1e-2
    relaxed_weight_decay: float = 0.4
    relaxed_shrinkage: Literal["threshold", "proportional"] = "threshold"
    gradient_clip: float = 0.3
    ema_decay: float = 0.999
    part_rates: dict[str, float] = field(default_factory=dict)
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Reject values outside their range."""
        for name in ("learning_rate", "relaxed_learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` is {value}; it must be positive")
        for name in ("warmup", "decay_start", "final_learning_rate", "relaxed_weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be from 0 to 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` is {self.ema_decay}; it must be from 0 to below 1")
        for part, factor in self.part_rates.items():
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(f"`part_rates` has {factor} for {part}; it must be 0 or more")
        for name in ("weight_decay", "gradient_clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be 0 or more")

    @property
    def rate(self) -> float:
        """Maximum learning rate."""
        return 1e-2 if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Run time, hardware, logs and checkpoints.

    Args:
        max_time: maximum duration including validation, as 90s, 10m, 1h30m or DD:HH:MM:SS. The
            learning-rate schedule is fitted to it. Default: 1h if no limit is given. The first
            limit reached ends the training.
        clock: clock of max_time: wall, or cpu (CPU time of the first process), which makes
            trainings on a busy machine comparable.
        max_epochs: passes over the training data.
        max_steps: updates of the weights.
        accelerator: cpu, gpu or auto (a GPU if available).
        devices: number of processes (CPU) or GPUs per node.
        num_nodes: number of machines.
        strategy: ddp for several devices; auto uses it when needed.
        timeout: maximum time a process waits for the others before the training fails (format as
            max_time). It must exceed the time to prepare the data.
        ops: fused (compiled kernels), reference (plain PyTorch) or auto (the faster of
            the two).
        deterministic: refuse operations whose result changes from run to run.
        validate_every: number of steps between validations. Default: about 20 validations in the
            whole training.
        log_every_n_steps: number of steps between entries of the logs.
        wandb: log to Weights & Biases too: offline writes to the folder of the training only,
            online sends the logs to your account. Needs the package wandb.
        mlflow: log to MLflow too: local writes to the folder of the training, or the address of a
            tracking server or store (http://…, sqlite:///…). Needs mlflow, or mlflow-skinny.
        project: name of the project of W&B and of the experiment of MLflow.
        enable_progress_bar: show a live progress line in a terminal instead of plain lines.
        directory: folder for logs, checkpoints and plots. Default: runs/NAME next to the output
            NAME.
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
    wandb: Literal["offline", "online"] | None = None
    mlflow: str | None = None
    project: str = "tesseral"
    enable_progress_bar: bool = True
    directory: str | None = None

    def __post_init__(self) -> None:
        """Reject durations that cannot be parsed and numbers below 1."""
        if self.max_time is not None:
            parse_duration(self.max_time)
        parse_duration(self.timeout)
        for name in (
            *("max_epochs", "max_steps", "devices", "num_nodes"),
            *("validate_every", "log_every_n_steps"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`trainer.{name}` is {value}; it must be 1 or more")

    @property
    def ranks(self) -> int:
        """Number of processes on all nodes."""
        return self.devices * self.num_nodes

    @property
    def seconds(self) -> float:
        """Time limit in seconds; infinite if only steps or epochs are limited."""
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
        output: model file to write (.safetensors). It exists from the first validation on.
        model: architecture and size, e.g. ``NequIPConfig(channels=16)``.
        loss: terms and weights of the loss.
        optimization: optimiser, learning rate and averaging of the weights.
        trainer: run time, hardware, logs and checkpoints.
        seed: random seed of the initial weights. data.seed controls the split and the shuffling.
        refit: after the training, train again on all of ``data.train``, the validation structures
            included, up to the step that was best in validation. The model card keeps the errors
            of the first training. Always with ``data.folds``.
        init_from: model file (or universal) to fine-tune: training starts from its architecture
            and weights. Reference energies are shifted to those of the data, and new elements are
            added.
        short_range: join the potential to the repulsion of the nuclei where atoms are closer than
            in the training data. Nothing changes at the distances of the data.
        ckpt_path: checkpoint to resume from: last, best, or a file.
    """

    data: DataConfig
    output: str
    model: PotentialConfig = field(default_factory=FacetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = 0
    refit: bool = False
    init_from: str | None = None
    short_range: bool = True
    ckpt_path: str | None = None

    def __post_init__(self) -> None:
        """Reject an output name that could not be loaded again, and a term without an effect."""
        if Path(self.output).suffix != ".safetensors":
            raise ValueError(f"`output` is {self.output!r}; name it ….safetensors")
        exact = not (self.model.relaxed or self.model.has_grid_error)
        if self.loss.symmetry_weight > 0 and exact and self.init_from is None:
            raise ValueError(
                f"`symmetry_weight` is {self.loss.symmetry_weight}, but this potential is exactly "
                "symmetric; leave it out"
            )
        if self.refit and self.data.validation is not None:
            raise ValueError(
                "`refit` trains on all of `data.train`; put the structures of `data.validation` "
                "into it, or leave out `refit`"
            )
        if self.refits:
            self._check_refit()

    def _check_refit(self) -> None:
        """Reject options that folds and refits do not have."""
        name = "data.folds" if self.data.folds is not None else "refit"
        for other, given in (
            ("data.theory", self.data.theory is not None),
            ("data.replay", self.data.replay is not None),
            ("trainer.devices", self.trainer.ranks > 1),
        ):
            if given:
                raise ValueError(f"`{name}` and `{other}` cannot be combined; leave out one")
        if self.ckpt_path not in (None, "last"):
            raise ValueError(
                f"`ckpt_path` is {self.ckpt_path}; with `{name}` it can only be last, which "
                "resumes the training that was interrupted"
            )

    @property
    def refits(self) -> bool:
        """Whether the model file is trained on all structures after others that hold some out."""
        return self.refit or self.data.folds is not None

    @property
    def run_directory(self) -> Path:
        """Folder of logs, checkpoints and plots."""
        if self.trainer.directory is not None:
            return Path(self.trainer.directory)
        output = Path(self.output)
        return output.parent / "runs" / output.stem

    @property
    def checkpoint(self) -> Path | None:
        """Checkpoint file to resume from."""
        if self.ckpt_path is None:
            return None
        if self.ckpt_path in ("last", "best"):
            return self.run_directory / f"{self.ckpt_path}.ckpt"
        return Path(self.ckpt_path)
