"""PaiNN: messages of scalars and vectors (Schütt, Unke, Gastegger, arXiv 2102.03150).

Equation numbers are those of the paper. The rows of the features are a scalar and the three
components of a vector, (N, 4, C). Radial filters are splines, so both sums over neighbours are
spline convolutions of degree 0 and 1 (docs/understand/systems.md). The sums are divided by the
square root of the mean number of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.flat import perceptron
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class PaiNNConfig(PotentialConfig):
    """PaiNN: scalars and vectors."""

    architecture: ClassVar[str] = "painn"
    layers: int = 3
    channels: int = 64


class PaiNNLayer(nn.Module):
    """Message block and update block: (N, 4, C) to (N, 4, C)."""

    def __init__(self, config: PaiNNConfig, mean_neighbors: float, first: bool, last: bool) -> None:
        """Make the weights; there are no vectors before the first layer or after the last."""
        super().__init__()
        channels = self.channels = config.channels
        self.first, self.last = first, last
        self.norm = mean_neighbors**-0.5
        self.message = perceptron(channels, channels, (2 if first else 3) * channels)
        radial = channels, config.spline_intervals, config.cutoff
        l_in = 0 if first else 1
        self.carry = SplineConvolution(l_in, 0, l_in, *radial)  # features of the neighbours
        self.point = SplineConvolution(0, 1, 1, *radial)  # scalars along the edges
        self.mix = DegreeLinear(0, channels, 2 * channels)  # U and V
        self.update = perceptron(2 * channels, channels, (2 if last else 3) * channels)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """Message and update; see ``message_passing`` for the shapes."""
        weights = self.message(features[:, 0]).unsqueeze(1)  # for all three terms, (N, 1, 3 C)
        parts = torch.split(weights, self.channels, dim=2)
        sent, x = parts[0], nn.functional.pad(features[:n_local], (0, 0, 0, 3))
        if not self.first:
            x = features[:n_local]
            sent = torch.cat([sent, features[:, 1:] * parts[2]], dim=1)
        constant = edges.harmonics[:, :1].contiguous()
        scalar = EdgeFeatures(constant, edges.radii, edges.senders, edges.receivers)
        carried = self.carry(sent, scalar, n_local)  # (7), (8) left
        pointed = self.point(parts[1], edges, n_local)  # (8) right
        if self.first:
            carried = nn.functional.pad(carried, (0, 0, 0, 3))
        return self.updated(x + (carried + pointed) * self.norm)

    def updated(self, features: Tensor) -> Tensor:
        """Update block: scalars and vectors of each atom interact."""
        scalars, vectors = features[:, 0], features[:, 1:]
        mixed = self.mix(vectors.reshape(-1, 1, self.channels)).view(-1, 3, 2 * self.channels)
        u, v = torch.split(mixed, self.channels, dim=2)  # U v, V v
        # Smooth where the vector vanishes, as it does on every symmetric site.
        norms = (v.square().mean(1) + 0.01).sqrt()
        weights = torch.split(self.update(torch.cat([scalars, norms], dim=1)), self.channels, dim=1)
        scalars = scalars + weights[0] + weights[1] * (u * v).mean(1)  # (9)
        if self.last:
            return scalars.unsqueeze(1)
        vectors = vectors + weights[2].unsqueeze(1) * u  # (10)
        return torch.cat([scalars.unsqueeze(1), vectors], dim=1)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, R, C) to (N, C)."""
        return features[:, 0]


def painn_layers(config: PaiNNConfig, n_species: int, mean_neighbors: float) -> list[PaiNNLayer]:
    """Layers of ``architecture: painn``."""
    last = config.layers - 1
    return [
        PaiNNLayer(config, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
