"""Loss: scaled errors of energy per atom, forces and virial, as pure functions.

Each term is a sum over labels and the number of labels, so that several processes can divide by
their total number of labels and get the loss of the joint batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tesseral.data.graph import AtomicGraph, Labels, atom_counts
from tesseral.potentials.derivatives import Prediction
from tesseral.training.config import LossConfig


class Residuals(NamedTuple):
    """Prediction minus label; exactly 0, with zero gradient, for a missing label."""

    energy: Tensor  # (G,)       eV per atom
    forces: Tensor  # (N, 3)     eV/Å
    stress: Tensor  # (G, 3, 3)  virial in eV per atom, or stress in eV/Å³


def label_counts(labels: Labels) -> Tensor:
    """Numbers of energies, force components and stress components, (3,) float64."""
    return torch.stack([torch.isfinite(part).sum() for part in labels]).to(torch.float64)


def residuals(prediction: Prediction, graph: AtomicGraph, labels: Labels, target: str) -> Residuals:
    """Differences between predictions and labels.

    Args:
        prediction: prediction of a potential for the graph.
        graph: G structures.
        labels: labels of the graph, NaN where missing.
        target: quantity compared for the stress labels: ``virial`` or ``stress``.
    """
    n_atoms = atom_counts(graph).clamp(min=1).to(torch.float64)
    a, b, c = graph.cell.unbind(1)  # LAPACK's determinant cannot be recorded on a GPU
    volume = (torch.linalg.cross(a, b) * c).sum(1).abs().view(-1, 1, 1)
    if target == "virial":
        stress = prediction.virial / n_atoms.view(-1, 1, 1)
        stress_label = -volume * labels.stress / n_atoms.view(-1, 1, 1)
    else:
        stress = -prediction.virial / torch.where(volume > 0, volume, torch.ones_like(volume))
        stress_label = labels.stress
    return Residuals(
        energy=_difference(prediction.energy, labels.energy) / n_atoms,
        forces=_difference(prediction.forces, labels.forces),
        stress=_difference(stress, stress_label),
    )


def loss_sums(differences: Residuals, force_rms: float, config: LossConfig) -> Tensor:
    """Sums of the loss function of the scaled errors over the labels, (3,): energy, forces, stress.

    Args:
        differences: result of ``residuals``.
        force_rms: RMS force (eV/Å) of the training set, the scale of all errors (times 1 Å for
            energies).
        config: configuration with the loss functions.
    """
    names = (config.energy, config.forces, config.stress)
    return torch.stack(
        [
            _function(name, part / force_rms, config.huber_delta)
            for name, part in zip(names, differences, strict=True)
        ]
    )


def loss_weights(config: LossConfig, progress: float) -> tuple[float, float, float]:
    """Weights of energy, forces and stress at a point of the training, 0 to 1."""
    given = config.energy_weight_final
    final = config.energy_weight if given is None else given
    risen = 0.5 - 0.5 * math.cos(math.pi * min(max(progress, 0.0), 1.0))
    energy = config.energy_weight + (final - config.energy_weight) * risen
    return energy, config.forces_weight, config.stress_weight


def weighted_loss(
    sums: Tensor, counts: Tensor, weights: Tensor | tuple[float, float, float]
) -> Tensor:
    """Weighted sum of the means; a term without labels is 0.

    Args:
        sums: (3,) from ``loss_sums``.
        counts: (3,) from ``label_counts``.
        weights: weights of energy, forces and stress.
    """
    scale = torch.as_tensor(weights, dtype=sums.dtype, device=sums.device)
    return (scale * sums / counts.clamp(min=1.0)).sum()


def _difference(prediction: Tensor, label: Tensor) -> Tensor:
    """Prediction minus label; 0 for a missing label, so that no NaN enters a gradient."""
    return prediction - torch.where(torch.isfinite(label), label, prediction.detach())


def _function(name: str, scaled: Tensor, delta: float) -> Tensor:
    """Sum of squares, absolute values, or Huber's function (equal to the square below delta)."""
    if name == "mse":
        return scaled.square().sum()
    if name == "mae":
        return scaled.abs().sum()
    if name == "huber":
        zeros = torch.zeros_like(scaled)
        return 2.0 * functional.huber_loss(scaled, zeros, reduction="sum", delta=delta)
    raise ValueError(f"unknown loss function {name!r}; use mse, mae or huber")
