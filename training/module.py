"""Training step of a potential, as a LightningModule."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from tesseral.data.graph import AtomicGraph, Batch
from tesseral.potentials.blocks.geometry import random_orthogonal
from tesseral.potentials.derivatives import Prediction, predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.wanted_gradients import gradients_of
from tesseral.potentials.symmetry import broken_weights
from tesseral.training.config import LossConfig, OptimizationConfig
from tesseral.training.ema import WeightAverage
from tesseral.training.loss import (
    Residuals,
    label_counts,
    loss_sums,
    loss_weights,
    residuals,
    weighted_loss,
)
from tesseral.training.relaxed import Relaxation
from tesseral.training.schedule import Budget, Clock, learning_rate
from tesseral.training.soap import Soap
from tesseral.training.validation import all_sum


class DivergenceError(RuntimeError):
    """The loss or its gradient is not a finite number; the weights are those before the step.

    Attributes:
        rows: rows in the training file of the structures of the batch.
    """

    def __init__(self, message: str, rows: list[int]) -> None:
        """Create the error with a message and the rows of the structures."""
        super().__init__(message)
        self.rows = rows


class Seen(NamedTuple):
    """Sums over training batches."""

    steps: float
    loss: float
    atoms: float
    energies: float  # number of labels
    energy: float  # Σ |error|, eV per atom
    components: float  # number of labels
    forces: float  # Σ |error|, eV/Å


def seen_errors(before: Seen, after: Seen) -> dict[str, float]:
    """Mean loss and MAE (meV/atom, meV/Å) of the training between two snapshots."""
    change = Seen(*(b - a for a, b in zip(before, after, strict=True)))
    parts = {
        "loss": (1.0, change.loss, change.steps),
        "energy_mae": (1e3, change.energy, change.energies),
        "forces_mae": (1e3, change.forces, change.components),
    }
    return {name: f * total / number for name, (f, total, number) in parts.items() if number > 0}


class PotentialModule(lightning.LightningModule):
    """Potential with the moving average of its weights and its training step.

    Learning rate and loss weights follow the progress of the training. All ranks take it from rank
    0, since clocks differ.
    """

    def __init__(
        self,
        potential: MessagePassing,
        *,
        loss: LossConfig,
        optimization: OptimizationConfig,
        budget: Budget,
        force_rms: float,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            potential: potential with its initial weights, in the dtype of the training.
            loss: configuration of the loss.
            optimization: configuration of the optimiser.
            budget: limits of the training.
            force_rms: RMS force (eV/Å) of the training set, the scale of the loss.
            clock: clock of the budget. Default: wall-clock time.
            seed: random seed of the numbers that the potential draws in a step.
        """
        super().__init__()
        self.potential = potential
        self.averaged = copy.deepcopy(potential).requires_grad_(False)
        self.groups = part_groups(self.potential, optimization.part_rates)
        self.average = WeightAverage(self.potential, self.averaged, optimization.ema_decay)
        broken = [weight for weight in broken_weights(potential) if weight.requires_grad]
        self.relaxation = None
        if broken:
            self.relaxation = Relaxation(
                broken,
                optimization.relaxed_weight_decay,
                threshold=optimization.relaxed_shrinkage == "threshold",
            )
        self.loss_config, self.optimization = loss, optimization
        self.budget, self.force_rms, self.seed = budget, force_rms, seed
        self.clock = clock or Clock()
        self.stop_requested = False  # set by a signal, on any rank
        self.elapsed = 0.0  # seconds at the start of this step, the same on all ranks
        self.stopping = False  # all ranks have agreed to stop after this step
        self.seen = torch.zeros(len(Seen._fields), dtype=torch.float64)

    @property
    def progress(self) -> float:
        """Completed fraction of the training, 0 to 1, the same on all ranks."""
        return self.budget.progress(self.global_step, self.elapsed)

    @property
    def final_weights(self) -> tuple[float, float, float]:
        """Final weights of the loss, which make validations at different times comparable."""
        return loss_weights(self.loss_config, 1.0)

    def configure_optimizers(self) -> Optimizer:
        """SOAP or Adam, with decoupled weight decay; broken components use ``Relaxation``."""
        config = self.optimization
        if config.optimizer == "soap":
            return Soap(
                self.groups,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
            )
        return AdamW(
            self.groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def on_train_start(self) -> None:
        """Start the clock and the counters."""
        self.seen = self.seen.to(self.device)
        self.clock.start()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, scaled so that the mean over ranks is the loss of the joint batch."""
        counts = self._agree(batch)
        progress = self._progress = self.progress
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = group.get("rate", 1.0) * learning_rate(self.optimization, progress)
        # A resumed training draws the same numbers as one that was not interrupted.
        number = self.global_step * self.trainer.world_size + self.global_rank
        torch.default_generator.manual_seed(self.seed + number)
        prediction = predict(self.potential, batch.graph, create_graph=True)
        target = self.loss_config.stress_target
        differences = residuals(prediction, batch.graph, batch.labels, target)
        sums = loss_sums(differences, self.force_rms, self.loss_config)
        weights = loss_weights(self.loss_config, progress)
        loss = weighted_loss(sums, counts, weights) * self.trainer.world_size
        if self.loss_config.symmetry_weight > 0:
            loss = loss + self.loss_config.symmetry_weight * self.change(batch.graph, prediction)
        self._watch(loss, differences, batch)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients with respect to the weights; unused ones (positions) are not computed."""
        with gradients_of("weights"):
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient; stop before a step that would corrupt the weights.

        Raises:
            DivergenceError: the gradient is not finite.
        """
        largest = self.optimization.gradient_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.potential.parameters(), largest)
        if not math.isfinite(float(norm)):
            raise self._divergence()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then update the moving average."""
        number = self.global_step
        super().optimizer_step(*args, **kwargs)
        if self.relaxation is not None:
            part = (
                learning_rate(self.optimization, self._progress) / self.optimization.learning_rate
            )
            self.relaxation.step(part * self.optimization.relaxed_learning_rate)
        self.average.update(number)

    def snapshot(self) -> Seen:
        """Sums over the training so far on this rank; two snapshots give the errors in between."""
        return Seen(*self.seen.tolist())

    def _agree(self, batch: Batch) -> Tensor:
        """Numbers of labels in the joint batch; also share elapsed time and stop requests."""
        counts = label_counts(batch.labels)
        elapsed = self.clock.elapsed if self.global_rank == 0 else 0.0
        if self.trainer.world_size == 1:
            self.elapsed, self.stopping = elapsed, self.stop_requested
            return counts
        own = torch.tensor([elapsed, float(self.stop_requested)], dtype=torch.float64)
        shared = torch.cat([counts, own.to(counts.device)])
        all_sum(shared)
        self.elapsed, self.stopping = float(shared[3]), bool(shared[4] > 0)
        return shared[:3]

    def change(self, graph: AtomicGraph, prediction: Prediction) -> Tensor:
        """Mean square change of forces, in units of ``force_rms``, by a random rotation.

        Args:
            graph: structures.
            prediction: prediction for them; half of the rotations are followed by a reflection.
        """
        matrix = random_orthogonal().to(graph.positions.device)
        turned = graph._replace(positions=graph.positions @ matrix.T, cell=graph.cell @ matrix.T)
        forces = predict(self.potential, turned, create_graph=True).forces
        change = forces - prediction.forces @ matrix.T
        return (change / self.force_rms).square().mean()

    @torch.no_grad()
    def _watch(self, loss: Tensor, differences: Residuals, batch: Batch) -> None:
        """Add to the sums of ``snapshot``, without waiting for a GPU."""
        self._rows, self._loss = batch.index, loss.detach()
        counts = label_counts(batch.labels)
        one = torch.ones_like(self._loss)
        values = [  # in the order of Seen
            *(one, self._loss, one * batch.graph.positions.shape[0]),
            *(counts[0], differences.energy.abs().sum()),
            *(counts[1], differences.forces.abs().sum()),
        ]
        self.seen += torch.stack(values)

    def _divergence(self) -> DivergenceError:
        """Error for a non-finite gradient, with the structures of all ranks."""
        rows = sorted(int(row) for row in self._rows)
        guilty = rows if not math.isfinite(float(self._loss)) else []
        parts: list[Any] = [(guilty, rows)]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, (guilty, rows))
        what = "loss" if any(part[0] for part in parts) else "gradient of the loss"
        named = sorted(row for part in parts for row in (part[0] if what == "loss" else part[1]))
        return DivergenceError(
            f"the {what} became nan or infinite at step {self.global_step}, for the structures in "
            f"rows {', '.join(map(str, named))} of the training file",
            named,
        )


def part_groups(potential: MessagePassing, part_rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser, one for each learning-rate factor.

    Weights with factor 0 are in no group and no longer require a gradient. Broken components, which
    are updated by ``Relaxation``, are in no group either.

    Args:
        potential: potential with the weights; modified if parts are frozen.
        part_rates: see ``OptimizationConfig``.

    Raises:
        ValueError: a prefix matches no weights, or all weights are frozen.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    broken = {id(weight) for weight in broken_weights(potential)}
    unused = set(part_rates)
    for name, parameter in potential.named_parameters():
        fitting = [part for part in part_rates if fnmatchcase(f"{name}.", f"{part}.*")]
        unused.difference_update(fitting)
        rate = part_rates[max(fitting, key=len)] if fitting else 1.0
        if rate == 0:
            parameter.requires_grad_(False)
        elif id(parameter) not in broken:
            groups.setdefault(rate, []).append(parameter)
    if unused:
        names = [name for name, _ in potential.named_parameters()]
        parts = sorted({".".join(name.split(".")[:2]) for name in names})
        raise ValueError(
            f"part_rates names {', '.join(sorted(unused))}, which the potential does not have; its "
            f"parts are {', '.join(parts)}"
        )
    if not groups:
        raise ValueError("part_rates freezes all weights; there is nothing to train")
    return [{"params": weights, "rate": rate} for rate, weights in groups.items()]
