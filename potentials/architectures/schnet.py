"""SchNet: continuous-filter convolutions of invariant features (Schütt et al., arXiv 1706.08566).

Messages depend only on the distances of the neighbours, not on angles or directions. Equation
numbers are those of the paper. The filter-generating network is a spline
(docs/understand/theory.md), and sums over neighbours are divided by the square root of their mean
number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.radial import SplineRadial
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class SchNetConfig(PotentialConfig):
    """SchNet: distances only."""

    architecture: ClassVar[str] = "schnet"
    layers: int = 3
    channels: int = 64


class SchNetLayer(nn.Module):
    """Interaction block: (N, 1, C) to (N, 1, C)."""

    def __init__(self, config: SchNetConfig, mean_neighbors: float) -> None:
        """Make the weights."""
        super().__init__()
        channels = config.channels
        self.norm = mean_neighbors**-0.5
        self.filter = SplineRadial(channels, config.spline_intervals, config.cutoff)
        self.enter = nn.Linear(channels, channels, bias=False)
        self.hidden = nn.Linear(channels, channels)
        self.leave = nn.Linear(channels, channels)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One interaction; see ``message_passing`` for the shapes."""
        x = features[:, 0]
        sent = self.enter(x)[edges.senders] * self.filter(edges.radii)  # (E, C), (2)
        messages = torch.zeros_like(x[:n_local]).index_add(0, edges.receivers, sent) * self.norm
        update: Tensor = self.leave(shifted_softplus(self.hidden(messages)))  # (3)
        return (x[:n_local] + update).unsqueeze(1)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, 1, C) to (N, C)."""
        return features[:, 0]


def shifted_softplus(x: Tensor) -> Tensor:
    """Shifted softplus, ``ln(e^x / 2 + 1 / 2)``: smooth, zero at zero."""
    return nn.functional.softplus(x) - math.log(2.0)


def schnet_layers(config: SchNetConfig, n_species: int, mean_neighbors: float) -> list[SchNetLayer]:
    """Layers of ``architecture: schnet``."""
    return [SchNetLayer(config, mean_neighbors) for _ in range(config.layers)]
