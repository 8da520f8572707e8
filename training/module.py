"""Training step of a potential, as a LightningModule."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tesseral.data.graph import AtomicGraph, Batch
from tesseral.potentials.blocks.geometry import random_orthogonal
from tesseral.potentials.derivatives import Prediction, predict, predict_padded
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.wanted_gradients import gradients_of
from tesseral.potentials.symmetry import broken_weights
from tesseral.training.config import LossConfig, OptimizationConfig
from tesseral.training.ema import WeightAverage
from tesseral.training.loss import (
    label_counts,
    loss_sums,
    loss_weights,
    residuals,
    weighted_loss,
)
from tesseral.training.recorded import RecordedLoss, RecordedUpdate, Room, on_device
from tesseral.training.relaxed import Relaxation
from tesseral.training.schedule import Budget, Clock, learning_rate
from tesseral.training.soap import Adam, Soap
from tesseral.training.update import Update
from tesseral.training.validation import all_sum

PATIENCE = 10  # steps on a GPU before the host waits for it, to see whether they were finite


class DivergenceError(RuntimeError):
    """The loss or its gradient is not a finite number; the weights are those before the step.

    Attributes:
        rows: rows in the training file of the structures of the batch.
    """

    def __init__(self, message: str, rows: list[int]) -> None:
        """Create the error with a message and the rows of the structures."""
        super().__init__(message)
        self.rows = rows


class _Taken(NamedTuple):
    """A step whose gradient is not known yet to be finite."""

    number: int
    rows: Tensor
    loss: Tensor


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
                lr=config.rate,
                weight_decay=config.weight_decay,
            )
        return Adam(self.groups, config.rate, config.weight_decay)

    def on_train_start(self) -> None:
        """Start the clock and the counters."""
        self.seen = self.seen.to(self.device)
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        largest = self.optimization.gradient_clip or math.inf
        self._update = Update(self.potential, optimizer, self.average, largest)
        self._recent: list[_Taken] = []
        self._patience = 1
        if gpu.on_gpu(self.potential) and self.trainer.world_size == 1 and self.relaxation is None:
            self._patience = PATIENCE
        self._take: Callable[[Tensor], None] = self._update.change
        self._replay: RecordedLoss | None = None
        self.clock.start()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, scaled so that the mean over ranks is the loss of the joint batch."""
        counts = self._agree(batch)
        progress = self._progress = self.progress
        optimizer = self._update.optimizer
        for group in optimizer.param_groups:
            group["lr"] = group.get("rate", 1.0) * learning_rate(self.optimization, progress)
        # A resumed training draws the same numbers as one that was not interrupted.
        number = self.global_step * self.trainer.world_size + self.global_rank
        torch.default_generator.manual_seed(self.seed + number)
        weights = on_device(loss_weights(self.loss_config, progress), self.device)
        found = None if self._replay is None else self._replay(batch, weights)
        self._replayed = found is not None
        if found is None:
            prediction = predict(self.potential, batch.graph, create_graph=True)
            loss, seen = self._loss(prediction, batch, counts, weights)
        else:
            loss, seen = found[0].clone(), found[1]
        self.seen += seen
        self._recent.append(_Taken(self.global_step, batch.index, loss.detach()))
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients with respect to the weights; unused ones (positions) are not computed."""
        if self._replayed:  # the gradient has been computed with the loss
            self._update.share()
            return
        with gradients_of("weights"):
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        new = self._update.gather()
        if new and gpu.on_gpu(self.potential) and self.relaxation is None:
            self._record()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Compute the gradient, then change the weights, without Lightning's own clipping."""
        optimizer_closure()
        self.update()

    def update(self) -> None:
        """Clip the gradient, take the step, and move the average.

        Raises:
            DivergenceError: a gradient was not finite; the weights are those before its step.
        """
        number = self.global_step
        numbers = on_device(self._update.count(number), self.device)
        if self.relaxation is None:
            self._take(numbers)
            self._update.optimizer.refresh()
            if (number + 1) % self._patience == 0:
                self.check()
            return
        share = self._update.step(numbers)
        self._update.optimizer.refresh()
        self.check()
        part = learning_rate(self.optimization, self._progress) / self.optimization.rate
        self.relaxation.step(part * self.optimization.relaxed_learning_rate)
        self.average.update(share)

    def check(self) -> None:
        """Wait for the steps so far, and end the training if a gradient was not finite.

        Raises:
            DivergenceError: a gradient was not finite; the weights are those before its step.
        """
        recent, self._recent = self._recent, []
        if not bool(self._update.alive):
            raise self._divergence(recent)

    def snapshot(self) -> Seen:
        """Sums over the training so far on this rank; two snapshots give the errors in between.

        Raises:
            DivergenceError: see ``check``.
        """
        if self._recent:
            self.check()
        return Seen(*self.seen.tolist())

    def _agree(self, batch: Batch) -> Tensor | None:
        """Share elapsed time and stop requests; numbers of labels in the joint batch of ranks."""
        elapsed = self.clock.elapsed if self.global_rank == 0 else 0.0
        if self.trainer.world_size == 1:
            self.elapsed, self.stopping = elapsed, self.stop_requested
            return None
        counts = label_counts(batch.labels)
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

    def _loss(
        self, prediction: Prediction, batch: Batch, counts: Tensor | None, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss, and what is added to the sums of ``snapshot``, without waiting for a GPU."""
        target = self.loss_config.stress_target
        differences = residuals(prediction, batch.graph, batch.labels, target)
        sums = loss_sums(differences, self.force_rms, self.loss_config)
        own = label_counts(batch.labels)
        joint = own if counts is None else counts
        loss = weighted_loss(sums, joint, weights) * self.trainer.world_size
        if self.loss_config.symmetry_weight > 0:
            loss = loss + self.loss_config.symmetry_weight * self.change(batch.graph, prediction)
        with torch.no_grad():
            one = torch.ones_like(own[0])
            values = [  # in the order of Seen
                *(one, loss.double(), one * len(batch.graph.positions)),
                *(own[0], differences.energy.abs().sum()),
                *(own[1], differences.forces.abs().sum()),
            ]
            return loss, torch.stack(values)

    def _record(self) -> None:
        """Record loss and steps from now on, for a gradient in this memory."""
        self._take = RecordedUpdate(self._update.change)
        whole = self.trainer.world_size == 1 and not self.loss_config.symmetry_weight
        if whole and gpu.trains(self.potential):
            self._replay = RecordedLoss(self._padded_loss)

    def _padded_loss(self, room: Room) -> list[Tensor]:
        """Loss and sums of a batch in a room; its gradient is copied to that of ``_update``."""
        batch = room.batch
        prediction = predict_padded(self.potential, batch.graph, room.counts)
        loss, seen = self._loss(prediction, batch, None, room.weights)
        seen[2] = room.atoms
        gradients = torch.autograd.grad(loss, self._update.trained)
        torch.cat([each.flatten() for each in gradients], out=self._update.gradient)
        return [loss.detach(), seen]

    def _divergence(self, recent: list[_Taken]) -> DivergenceError:
        """Error for a non-finite gradient, with the structures of all ranks."""
        steps = [(each.number, sorted(map(int, each.rows))) for each in recent]
        bad = [not math.isfinite(float(each.loss)) for each in recent]
        rows = sorted(row for _, own in steps for row in own)
        first, guilty = steps[bad.index(True)] if any(bad) else (steps[0][0], [])
        parts: list[Any] = [(guilty, rows)]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, (guilty, rows))
        what = "loss" if any(part[0] for part in parts) else "gradient of the loss"
        named = sorted(row for part in parts for row in (part[0] if what == "loss" else part[1]))
        return DivergenceError(
            f"the {what} became nan or infinite at step {first}, for the structures in "
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
