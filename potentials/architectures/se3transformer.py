"""SE(3)-Transformer: attention over neighbours (Fuchs et al., arXiv 2006.10503).

Values are steerable messages as in tensor field networks. The weight of a neighbour is invariant:
a scalar product of a query of the receiver and a key that the edge makes of the sender. Equation
numbers are those of docs/understand/systems.md. Features are (N, M, C) with natural parity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.flat import perceptron
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.radial import SplineRadial, envelope
from tesseral.potentials.blocks.sphere import EdgeFeatures, degree_sizes
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class SE3TransformerConfig(PotentialConfig):
    """SE(3)-Transformer: steerable messages with invariant attention weights.

    Args:
        l_max: highest degree of the atoms' spherical-harmonic features and of the edges' harmonics.
        heads: number of groups of channels with attention weights of their own; a divisor of
            channels.
    """

    architecture: ClassVar[str] = "se3transformer"
    layers: int = 3
    channels: int = 32
    l_max: int = 2
    heads: int = 2

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(0, "l_max")
        self._require(1, "heads")
        if self.channels % self.heads != 0:
            raise ValueError(
                f"`heads` is {self.heads} and `channels` {self.channels}; "
                "the channels must be divisible by the heads"
            )

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics, equal to that of the features."""
        return self.l_max


class Attention(nn.Module):
    """Weights of the neighbours, one for each head, from the features of both ends."""

    def __init__(self, config: SE3TransformerConfig, l_in: int) -> None:
        """Make the weights."""
        super().__init__()
        degrees, channels = l_in + 1, config.channels
        self.cutoff, self.heads = config.cutoff, config.heads
        self.sizes = degree_sizes(l_in)
        self.scale = (2 * degrees * channels / config.heads) ** -0.5
        self.query = DegreeLinear(l_in, channels, channels)
        self.key = DegreeLinear(l_in, channels, channels)
        functions = 3 * degrees * channels
        self.radial = SplineRadial(functions, config.spline_intervals, config.cutoff)

    def forward(self, features: Tensor, edges: EdgeFeatures, n_local: int) -> Tensor:
        """(N, M, C) to weights (E, H), of which each atom receives at most 1 in total."""
        n_edges, channels = edges.senders.shape[0], features.shape[2]
        queries = torch.split(self.query(features[:n_local]), self.sizes, dim=1)
        keys = torch.split(self.key(features), self.sizes, dim=1)
        radial = self.radial(edges.radii).split(channels, dim=1)  # 3 (l_in + 1) of (E, C)
        products = torch.zeros_like(radial[0])  # of query and key, (E, C)
        from_receiver, from_sender = torch.zeros_like(radial[0]), torch.zeros_like(radial[0])
        first = 0
        for degree, size in enumerate(self.sizes):
            q = queries[degree].index_select(0, edges.receivers)  # (E, 2 l + 1, C)
            k = keys[degree].index_select(0, edges.senders)
            y = edges.harmonics[:, first : first + size].unsqueeze(1)
            own = radial[3 * degree : 3 * degree + 3]
            products = products + own[0] * (q * k).sum(1) * size**-0.5
            from_receiver = from_receiver + own[1] * (y @ q).squeeze(1) * size**-0.5
            from_sender = from_sender + own[2] * (y @ k).squeeze(1) * size**-0.5
            first += size
        scores = products + from_receiver * from_sender
        scores = scores.view(n_edges, self.heads, channels // self.heads).sum(2) * self.scale  # (1)
        near = envelope(edges.radii, self.cutoff).to(scores.dtype).unsqueeze(1)
        # Any constant cancels; the largest score of an atom keeps the exponentials finite.
        index = edges.receivers.unsqueeze(1).expand(n_edges, self.heads)
        largest = scores.new_zeros(n_local, self.heads)
        largest = largest.scatter_reduce(0, index, scores.detach(), "amax")
        shares = near * torch.exp(scores - largest.index_select(0, edges.receivers))
        total = torch.exp(-largest).index_add(0, edges.receivers, shares)
        return shares / total.index_select(0, edges.receivers)  # (2)


class SE3TransformerLayer(nn.Module):
    """Attention and self-interaction: (N, M_in, C) to (N, M_out, C)."""

    def __init__(self, config: SE3TransformerConfig, first: bool, last: bool) -> None:
        """Make the weights; the input of the first layer and the output of the last are scalars."""
        super().__init__()
        l_max, channels, heads = config.l_max, config.channels, config.heads
        l_in, l_out = 0 if first else l_max, 0 if last else l_max
        self.missing = (l_max + 1) ** 2 - (l_in + 1) ** 2
        self.width, self.sizes = channels // heads, degree_sizes(l_max)
        self.attention = Attention(config, l_in)
        self.values = nn.ModuleList(
            SplineConvolution(
                l_in, l_max, l_max, self.width, config.spline_intervals, config.cutoff
            )
            for _ in range(heads)
        )
        self.leave = DegreeLinear(l_max, channels, channels)
        self.own = DegreeLinear(l_in, channels, channels)
        self.weigh = perceptron((l_max + 1) * channels, channels, (l_out + 1) * channels)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        weights = self.attention(features, edges, n_local)
        sent = torch.split(features, self.width, dim=2)
        sums: list[Tensor] = []
        for head, values in enumerate(self.values):  # TorchScript cannot zip modules
            # A convolution is linear in the harmonics: they can carry the weight of the edge.
            weighed = edges.harmonics * weights[:, head : head + 1]
            through = EdgeFeatures(weighed, edges.radii, edges.senders, edges.receivers)
            sums.append(values(sent[head].contiguous(), through, n_local))  # (3)
        local = features[:n_local]
        rows = (0, 0, 0, self.missing)  # the first layer's features are scalars
        field = self.leave(torch.cat(sums, dim=2)) + nn.functional.pad(self.own(local), rows)
        update = self.interaction(field)
        return nn.functional.pad(local, rows)[:, : update.shape[1]] + update

    def interaction(self, field: Tensor) -> Tensor:
        """Field (N, M, C) of each atom, weighed by a network of its invariants."""
        parts = torch.split(field, self.sizes, dim=1)
        invariants = [parts[0].squeeze(1)]
        for part in parts[1:]:
            invariants.append((part.square().mean(1) + 0.01).sqrt())  # smooth at zero
        weights = self.weigh(torch.cat(invariants, dim=1)).split(field.shape[2], dim=1)
        updates = [weights[0].unsqueeze(1)]
        for part, weight in zip(parts[1:], weights[1:]):
            updates.append(part * torch.sigmoid(weight).unsqueeze(1))
        return torch.cat(updates, dim=1)  # (4)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, M, C) to (N, C)."""
        return features[:, 0]


def se3transformer_layers(
    config: SE3TransformerConfig, n_species: int, mean_neighbors: float
) -> list[SE3TransformerLayer]:
    """Layers of ``architecture: se3transformer``."""
    last = config.layers - 1
    return [SE3TransformerLayer(config, first=i == 0, last=i == last) for i in range(config.layers)]
