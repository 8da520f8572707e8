"""Loss and errors of a potential on a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from tesseral.data.graph import AtomicGraph, Batch, Labels
from tesseral.potentials.derivatives import Potential, Prediction, predict
from tesseral.training.config import LossConfig
from tesseral.training.loss import label_counts, loss_sums, residuals, weighted_loss
from tesseral.training.metrics import ErrorSums


class Validation(NamedTuple):
    """Errors on a validation set."""

    loss: float  # with the weights of the training loss at that time
    errors: dict[str, Any]  # see ErrorSums.summary


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to a device."""
    return Batch(
        graph=AtomicGraph(*(part.to(device) for part in batch.graph)),
        labels=Labels(*(part.to(device) for part in batch.labels)),
        index=batch.index.to(device),
    )


def predict_frozen(potential: Potential, batch: Batch) -> Prediction:
    """Prediction in evaluation mode, without gradients of the weights, to save time and memory."""
    assert isinstance(potential, nn.Module)
    mode = potential.training
    potential.eval()
    frozen = [parameter for parameter in potential.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        return predict(potential, batch.graph)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        potential.train(mode)


def predictions(
    potential: Potential, batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[Batch, Prediction]]:
    """Yield each batch, moved to the device of the potential, with its prediction."""
    for batch in batches:
        batch = to_device(batch, device)
        yield batch, predict_frozen(potential, batch)


def validate(
    potential: Potential,
    batches: Iterable[Batch],
    sums: ErrorSums,
    *,
    device: torch.device,
    loss: LossConfig,
    weights: tuple[float, float, float],
    force_rms: float,
) -> Validation:
    """Loss and errors over all batches of all processes.

    Args:
        potential: potential on the device.
        batches: batches of the validation set for this process.
        sums: empty sums to fill.
        device: device of the potential.
        loss: configuration with the loss functions.
        weights: weights of energy, forces and stress in the loss.
        force_rms: RMS force (eV/Å), the scale of the loss.
    """
    total = torch.zeros(2, 3, dtype=torch.float64, device=device)
    for batch, prediction in predictions(potential, batches, device):
        sums.add(batch, prediction)
        differences = residuals(prediction, batch.graph, batch.labels, loss.stress_target)
        total[0] += loss_sums(differences, force_rms, loss)
        total[1] += label_counts(batch.labels)
    everything = torch.cat([total.flatten(), sums.sums.to(device).flatten()])
    all_sum(everything)
    total = everything[:6].view(2, 3)
    sums.sums = everything[6:].view_as(sums.sums).cpu()
    return Validation(float(weighted_loss(total[0], total[1], weights)), sums.summary())


def all_sum(values: Tensor) -> None:
    """Sum values over all processes in place; does nothing for a single process."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values)
