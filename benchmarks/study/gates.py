"""Learned sparsity: training closes paths of convolutions and channels of mixings (as in SPHNet).

A trained Facet is trained further while all weights of a path, or of a grid channel, are shrunk
towards zero together after each step (group lasso, Yuan and Lin 2006), in proportion to their
arithmetic. Those whose gradients do not agree from batch to batch close. After half of the time the
others are no longer shrunk, since that alone raises the error.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from benchmarks.sheets import Sheet
from tesseral.data.graph import Batch
from tesseral.potentials.architectures.facet import FacetLayer
from tesseral.potentials.blocks.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.blocks.sphere import coupling
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.wanted_gradients import gradients_of
from tesseral.training.config import LossConfig, OptimizationConfig
from tesseral.training.loss import label_counts, loss_sums, loss_weights, residuals, weighted_loss
from tesseral.training.soap import Soap

CLOSING = 0.5  # part of the time in which gates are shrunk


class Gate(NamedTuple):
    """Weights of the paths of a convolution, or of the channels of a mixing."""

    weight: nn.Parameter  # (A, G, B) for G paths or channels
    costs: Tensor  # arithmetic of each, mean 1

    def sizes(self) -> Tensor:
        """RMS of the weights of each path or channel."""
        return self.weight.detach().square().mean((0, 2)).sqrt()

    def shrink(self, amount: float) -> None:
        """Make each RMS smaller by this amount times its cost; 0 if it was smaller."""
        factors = (1.0 - amount * self.costs / self.sizes().clamp(min=1e-30)).clamp(min=0.0)
        self.weight.detach().mul_(factors.unsqueeze(1))

    def hold(self, opened: Tensor) -> None:
        """Set to zero what is not open."""
        self.weight.detach().mul_(opened.to(self.weight).unsqueeze(1))


def gates_of(potential: MessagePassing) -> tuple[list[Gate], list[Gate]]:
    """Gates of the convolutions' paths and of the mixings' grid channels of a Facet."""
    paths, channels = [], []
    for module in potential.layers:
        layer = cast("FacetLayer", module)
        products = [coupling(*path).count_nonzero() for path in layer.convolution.paths]
        costs = torch.stack(products).float()
        paths.append(Gate(layer.convolution.coefficients, costs / costs.mean()))
        for each in layer.mixings:
            mixing = cast("SphereMixing", each)
            weight = cast("DegreeLinear", mixing.leave).weight
            channels.append(Gate(weight, torch.ones(weight.shape[1])))
    return paths, channels


def close(
    potential: MessagePassing,
    batches: Iterable[Batch],
    force_rms: float,
    *,
    shrinkage: float,
    learning_rate: float,
    seconds: float,
) -> MessagePassing:
    """A copy that was trained further while its gates were shrunk.

    Args:
        potential: trained Facet, with compiled operators.
        batches: endless training batches.
        force_rms: RMS force (eV/Å) of the training set.
        shrinkage: of the RMS of a gate in a step, as a fraction of the learning rate, in the first
            half of the time.
        learning_rate: at the start; it falls to 0.
        seconds: CPU time.
    """
    potential = copy.deepcopy(potential)
    loss_config, clip = LossConfig(), OptimizationConfig().gradient_clip
    gates = [gate for kind in gates_of(potential) for gate in kind]
    opened = [gate.sizes() > 0 for gate in gates]
    optimizer = Soap(potential.parameters(), lr=learning_rate)
    start = time.process_time()
    for batch in batches:
        progress = (time.process_time() - start) / seconds
        if progress >= 1.0:
            break
        rate = learning_rate * (0.5 + 0.5 * math.cos(math.pi * progress))
        optimizer.param_groups[0]["lr"] = rate
        prediction = predict(potential, batch.graph, create_graph=True)
        differences = residuals(prediction, batch.graph, batch.labels, loss_config.stress_target)
        sums = loss_sums(differences, force_rms, loss_config)
        weights = loss_weights(loss_config, 1.0)
        optimizer.zero_grad()
        with gradients_of("weights"):
            weighted_loss(sums, label_counts(batch.labels), weights).backward()
        nn.utils.clip_grad_norm_(potential.parameters(), clip)
        optimizer.step()
        for number, gate in enumerate(gates):
            if progress < CLOSING:
                gate.shrink(rate * shrinkage)
                opened[number] = gate.sizes() > 0
            else:
                gate.hold(opened[number])
    return potential


def left(gates: Sequence[Gate]) -> tuple[int, int, float]:
    """Number of open gates, of all gates, and the part of their arithmetic that is left."""
    opened = [gate.sizes() > 0 for gate in gates]
    cost = sum(float(gate.costs[one].sum()) for gate, one in zip(gates, opened, strict=True))
    everything = sum(len(gate.costs) for gate in gates)
    return sum(int(one.sum()) for one in opened), everything, cost / everything


def gates_sheet(rows: Sequence[tuple[float, int, MessagePassing, float]]) -> Sheet:
    """Table of closed models.

    Args:
        rows: shrinkage, seed, model and its test MAE of forces (meV/Å).
    """
    sheet = Sheet(
        "Paths and grid channels closed by training",
        ("shrinkage", "seed", "paths", "arithmetic of paths", "grid channels", "forces"),
        "Paths and grid channels of all layers that stay open; test MAE of forces, meV/Å.",
    )
    for shrinkage, seed, potential, error in rows:
        paths, channels = (left(kind) for kind in gates_of(potential))
        sheet.rows.append(
            (
                f"{shrinkage:g}",
                str(seed),
                f"{paths[0]} of {paths[1]}",
                f"{100 * paths[2]:.0f}%",
                f"{channels[0]} of {channels[1]}",
                f"{error:.1f}",
            )
        )
    return sheet
