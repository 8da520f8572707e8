"""EGNN: invariant messages, and atoms that move (Satorras, Hoogeboom, Welling, arXiv 2102.09844).

Equation numbers are those of the paper. Each layer displaces the atoms. Later messages depend on
directions only through the distances of the displaced atoms. Features are h and the displacement u
in Å, (N, 1, C + 3): atom i is at r_i + u_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.flat import FlatLinear, perceptron
from tesseral.potentials.blocks.geometry import lengths_and_directions
from tesseral.potentials.blocks.radial import SplineRadial, envelope
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class EGNNConfig(PotentialConfig):
    """EGNN: invariant messages, and atoms that move from layer to layer.

    Args:
        move_atoms: let each layer displace the atoms for the next one.
    """

    architecture: ClassVar[str] = "egnn"
    layers: int = 3
    channels: int = 64
    move_atoms: bool = True


class EGNNLayer(nn.Module):
    """Equivariant graph convolution; input and output are (N, 1, C) or (N, 1, C + 3)."""

    def __init__(self, config: EGNNConfig, mean_neighbors: float, last: bool) -> None:
        """Make the weights; the last layer moves no atoms, since no distances are used after it."""
        super().__init__()
        channels = self.channels = config.channels
        self.cutoff = config.cutoff
        self.norm = mean_neighbors**-0.5
        self.receive = FlatLinear([channels], [channels])
        self.send = FlatLinear([channels], [channels])
        self.distance = SplineRadial(channels, config.spline_intervals, config.cutoff)
        self.edge = FlatLinear([channels], [channels])
        self.keep = FlatLinear([channels], [channels])
        self.add = FlatLinear([channels], [channels])
        self.leave = FlatLinear([channels], [channels])
        self.step: nn.Module | None = None
        if config.move_atoms and not last:
            self.step = perceptron(channels, channels, 1)
            for parameter in self.step[2].parameters():  # displacements start small
                nn.init.normal_(parameter, std=1e-3)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        h, u = features[:, 0, : self.channels], features[:, 0, self.channels :]
        senders, receivers, lengths = edges.senders, edges.receivers, edges.radii
        directions = edges.harmonics[:, 1:4]
        vectors = directions * (lengths * 3**-0.5).to(h.dtype).unsqueeze(1)  # x_i - x_j
        weights = envelope(lengths, self.cutoff).to(h.dtype).unsqueeze(1)
        if u.shape[1] > 0:
            vectors = vectors + u[receivers] - u[senders]
            lengths = lengths_and_directions(vectors)[0]
        hidden = self.receive(h)[receivers] + self.send(h)[senders] + self.distance(lengths)
        messages = nn.functional.silu(self.edge(nn.functional.silu(hidden))) * weights  # (3)
        h, u = h[:n_local], nn.functional.pad(u[:n_local], (0, 3 - u.shape[1]))
        sums = torch.zeros_like(h).index_add(0, receivers, messages) * self.norm  # (5)
        update: Tensor = self.leave(nn.functional.silu(self.keep(h) + self.add(sums)))
        h = h + update  # (6)
        if self.step is None:
            return h.unsqueeze(1)
        steps = vectors * self.step(messages).tanh() * weights
        u = u.index_add(0, receivers, steps * self.norm)  # (4)
        return torch.cat([h, u], dim=1).unsqueeze(1)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, 1, C + 3) to (N, C)."""
        return features[:, 0, : self.channels]


def egnn_layers(config: EGNNConfig, n_species: int, mean_neighbors: float) -> list[EGNNLayer]:
    """Layers of ``architecture: egnn``."""
    last = config.layers - 1
    return [EGNNLayer(config, mean_neighbors, last=i == last) for i in range(config.layers)]
