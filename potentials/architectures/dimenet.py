"""DimeNet: messages with a direction (Gasteiger et al., arXiv 2003.03123 and 2011.14115).

A message from j to i depends on the messages that j has received from its neighbours k and on the
angles between the edges k → j and j → i. DimeNet++ sums over the triplets k, j, i. With Legendre
polynomials of the angle as its basis no triplets are needed: P_l of the angle between two edges is
a sum over m of products Y_lm(r̂_kj) Y_lm(r̂_ji), so that

    Σ_k R_l(r_kj) P_l(r̂_kj · r̂_ji) m_kj = Σ_m Y_lm(r̂_ji) Σ_k R_l(r_kj) Y_lm(r̂_kj) m_kj.

The inner sum is a function on the sphere around j, its *field*, and the sum over triplets is the
value of this field in the direction of an edge. Time and memory grow with the number of edges.
Equation numbers are those of docs/understand/systems.md. The rows of the features are scalars and
the field, (N, 1 + M, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.flat import FlatLinear
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.radial import SplineRadial, envelope
from tesseral.potentials.blocks.sphere import EdgeFeatures, degree_sizes
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class DimeNetConfig(PotentialConfig):
    """DimeNet: messages with a direction, and angles between them.

    Args:
        l_max: highest degree of the Legendre polynomials of the angles.
    """

    architecture: ClassVar[str] = "dimenet"
    layers: int = 3
    channels: int = 32
    l_max: int = 3

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(1, "l_max")

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics, equal to that of the fields."""
        return self.l_max


class DimeNetLayer(nn.Module):
    """Messages and update: (N, 1 + M, C) to the same; no field before the first or after the last.

    The messages of a layer are not kept on the edges, but in the scalars and fields of the atoms.
    """

    __constants__ = ["first", "last"]  # so that TorchScript removes the unused branches

    def __init__(
        self, config: DimeNetConfig, mean_neighbors: float, first: bool, last: bool
    ) -> None:
        """Make the weights."""
        super().__init__()
        channels, l_max = config.channels, config.l_max
        self.first, self.last = first, last
        self.cutoff, self.norm = config.cutoff, mean_neighbors**-0.5
        self.sizes = degree_sizes(l_max)
        self.receive = FlatLinear([channels], [channels])
        self.send = FlatLinear([channels], [channels])
        self.distance = SplineRadial(channels, config.spline_intervals, config.cutoff)
        if not first:
            self.near = DegreeLinear(l_max, channels, channels)
            self.far = DegreeLinear(l_max, channels, channels)
            self.angle = FlatLinear([2 * channels], [channels])
        self.edge = FlatLinear([channels], [channels])
        self.keep = FlatLinear([channels], [channels])
        self.add = FlatLinear([channels], [channels])
        self.leave = FlatLinear([channels], [channels])
        if not last:
            functions = (l_max + 1) * channels
            self.radial = SplineRadial(functions, config.spline_intervals, config.cutoff)
            self.mix = DegreeLinear(l_max, channels, channels, scale=self.norm)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        x = features[:, 0]
        hidden = self.receive(x[:n_local])[edges.receivers] + self.send(x)[edges.senders]
        hidden = hidden + self.distance(edges.radii)
        if not self.first:
            hidden = hidden + self.angle(self.seen(features[:, 1:], edges, n_local))
        messages = nn.functional.silu(self.edge(nn.functional.silu(hidden)))
        messages = messages * envelope(edges.radii, self.cutoff).to(x.dtype).unsqueeze(1)  # (2)
        x = x[:n_local]
        sums = torch.zeros_like(x).index_add(0, edges.receivers, messages) * self.norm
        update: Tensor = self.leave(nn.functional.silu(self.keep(x) + self.add(sums)))
        scalars = (x + update).unsqueeze(1)  # (3)
        if self.last:
            return scalars
        field = self.mix(self.field(messages, edges, n_local))
        if not self.first:
            field = field + features[:n_local, 1:]
        return torch.cat([scalars, field], dim=1)

    def seen(self, field: Tensor, edges: EdgeFeatures, n_local: int) -> Tensor:
        """Fields (N, M, C) of both ends in the direction of the edge, side by side, (E, 2 C)."""
        rows = edges.harmonics.unsqueeze(1)  # (E, 1, M)
        far = rows @ self.far(field).index_select(0, edges.senders)
        near = rows @ self.near(field[:n_local]).index_select(0, edges.receivers)
        return torch.cat([far, near], dim=2).squeeze(1)  # (1)

    def field(self, messages: Tensor, edges: EdgeFeatures, n_local: int) -> Tensor:
        """Sum of the messages (E, C) that each atom receives, as a field (n_local, M, C); (4)."""
        channels = messages.shape[1]
        radial = torch.split(self.radial(edges.radii), channels, dim=1)
        directions = torch.split(edges.harmonics, self.sizes, dim=1)
        parts: list[Tensor] = []
        for size, own, y in zip(self.sizes, radial, directions):
            sent = y.unsqueeze(2) * (own * messages).unsqueeze(1)  # (E, 2 l + 1, C)
            sums = sent.new_zeros(n_local, size, channels)
            parts.append(sums.index_add(0, edges.receivers, sent))
        return torch.cat(parts, dim=1)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, R, C) to (N, C)."""
        return features[:, 0]


def dimenet_layers(
    config: DimeNetConfig, n_species: int, mean_neighbors: float
) -> list[DimeNetLayer]:
    """Layers of ``architecture: dimenet``."""
    last = config.layers - 1
    return [
        DimeNetLayer(config, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
