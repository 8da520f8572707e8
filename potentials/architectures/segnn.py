"""SEGNN: nonlinear steerable messages (Brandstetter et al., arXiv 2110.02905).

Messages and updates are steerable MLPs: their linear maps are Clebsch-Gordan products of features
with attributes (harmonics of an edge's direction, or of an atom's surroundings), followed by
gates. Equation numbers are those of docs/understand/systems.md, which also lists the differences
from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.radial import SplineRadial, envelope
from tesseral.potentials.blocks.sphere import EdgeFeatures, coupling, degree_sizes, degree_slice
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class SEGNNConfig(PotentialConfig):
    """SEGNN: nonlinear steerable messages.

    Args:
        l_max: highest degree of the atoms' spherical-harmonic features.
        l_max_edge: highest degree of the edges' harmonics. Default: l_max.
    """

    architecture: ClassVar[str] = "segnn"
    layers: int = 2
    channels: int = 16
    l_max: int = 2
    l_max_edge: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(0, "l_max", "l_max_edge")

    @property
    def edge_degree(self) -> int:
        """``l_max_edge``, or ``l_max`` if it is not given."""
        return self.l_max if self.l_max_edge is None else self.l_max_edge


class SteerableLinear(ExactBuffers):
    """``W_a x``: product of features with attributes, with a matrix over channels for each path."""

    def __init__(
        self, l_in: int, l_attributes: int, l_out: int, channels: int, widths: list[int]
    ) -> None:
        """Make the coupling tables, and weights that preserve unit variance.

        Args:
            l_in: highest degree of the input features.
            l_attributes: highest degree of the attributes.
            l_out: highest degree of the result.
            channels: C, the number of input channels.
            widths: channels of each degree of the result.
        """
        super().__init__()
        self.paths = convolution_paths(l_in, l_attributes, l_out)
        self.sizes = degree_sizes(l_out)
        self.components = (l_in + 1) ** 2
        self.linears = nn.ModuleList()
        tables = []
        for l3 in range(l_out + 1):
            ways = [(l1, l2) for l1, l2, degree in self.paths if degree == l3]
            shape = (l_attributes + 1) ** 2, 2 * l3 + 1, len(ways), self.components
            table = torch.zeros(shape, dtype=torch.float64)
            for way, (l1, l2) in enumerate(ways):
                block = coupling(l1, l2, l3).permute(1, 2, 0)
                table[degree_slice(l2), :, way, degree_slice(l1)] = block
            tables.append(table.flatten(1))
            linear = nn.Linear(len(ways) * channels, widths[l3], bias=l3 == 0)
            nn.init.normal_(linear.weight, std=(len(ways) * channels) ** -0.5)
            if l3 == 0:
                nn.init.zeros_(linear.bias)
            self.linears.append(linear)
        self.columns = [table.shape[1] for table in tables]
        self.register_buffer("couplings", torch.cat(tables, dim=1), persistent=False)
        self.couplings: Tensor  # (M2, Σ_l3 (2 l3 + 1) ways M1)

    def forward(self, features: Tensor, attributes: Tensor) -> list[Tensor]:
        """(E, M1, C) and (E, M2) to (E, 2 l + 1, widths[l]) for each degree l; (1)."""
        edges, _, channels = features.shape
        # Attributes first: one small matrix per edge then gives the products of all its channels.
        tables = torch.split(attributes @ self.couplings.to(features.dtype), self.columns, dim=1)
        parts: list[Tensor] = []
        for degree, linear in enumerate(self.linears):  # TorchScript cannot zip modules
            table, size = tables[degree], self.sizes[degree]
            rows = table.shape[1] // self.components  # (2 l + 1) ways
            product = table.view(edges, rows, self.components) @ features
            parts.append(linear(product.view(edges, size, rows // size * channels)))
        return parts


def gated_linear(l_in: int, l_attributes: int, l_out: int, channels: int) -> SteerableLinear:
    """A map for ``gated``, with one more set of scalars for each degree above 0."""
    widths = [channels * (1 + l_out)] + [channels] * l_out
    return SteerableLinear(l_in, l_attributes, l_out, channels, widths)


def gated(parts: list[Tensor]) -> Tensor:
    """(E, M, C): SiLU of the scalars, the rest times sigmoids of the further scalars; (2)."""
    scalars = torch.split(parts[0], parts[0].shape[2] // len(parts), dim=2)
    values = [nn.functional.silu(scalars[0])]
    for part, gate in zip(parts[1:], scalars[1:]):
        values.append(part * torch.sigmoid(gate))
    return torch.cat(values, dim=1)


class SEGNNLayer(nn.Module):
    """Message and update: (N, M_in, C) to (N, M_out, C)."""

    def __init__(self, config: SEGNNConfig, mean_neighbors: float, first: bool, last: bool) -> None:
        """Make the weights; the input of the first layer and the output of the last are scalars."""
        super().__init__()
        l_max, l_edge, channels = config.l_max, config.edge_degree, config.channels
        l_in, l_out = 0 if first else l_max, 0 if last else l_max
        l_mid = min(l_in + l_edge, l_max)
        self.channels, self.cutoff, self.norm = channels, config.cutoff, mean_neighbors**-0.5
        self.missing = (l_max + 1) ** 2 - (l_in + 1) ** 2
        self.sizes = degree_sizes(l_in)
        self.receiver = DegreeLinear(l_in, channels, channels)
        self.sender = DegreeLinear(l_in, channels, channels)
        self.radial = SplineRadial((l_in + 1) * channels, config.spline_intervals, config.cutoff)
        self.message1 = gated_linear(l_in, l_edge, l_mid, channels)
        self.message2 = gated_linear(l_mid, l_edge, l_max, channels)
        self.sum = DegreeLinear(l_max, channels, channels, scale=self.norm)
        self.own = DegreeLinear(l_in, channels, channels)
        self.update1 = gated_linear(l_max, l_edge, l_max, channels)
        self.update2 = SteerableLinear(l_max, l_edge, l_out, channels, [channels] * (l_out + 1))

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes; (n_local, M_out, C)."""
        local = features[:n_local]
        pair = self.receiver(local).index_select(0, edges.receivers)
        pair = pair + self.sender(features).index_select(0, edges.senders)  # (E, M_in, C)
        message = self.messages(pair, edges)  # (E, M, C)
        sums = message.new_zeros(n_local, message.shape[1], self.channels)
        sums = self.sum(sums.index_add(0, edges.receivers, message))  # (5)
        attributes = self.node_attributes(edges, n_local)
        rows = (0, 0, 0, self.missing)  # the first layer's features are scalars
        field = nn.functional.pad(self.own(local), rows) + sums
        hidden = gated(self.update1(field, attributes))
        update = torch.cat(self.update2(hidden, attributes), dim=1)  # (n_local, M_out, C), (7)
        return nn.functional.pad(local, rows)[:, : update.shape[1]] + update

    def messages(self, pair: Tensor, edges: EdgeFeatures) -> Tensor:
        """Messages along the edges, (E, M, C), from the features of both ends (E, M_in, C)."""
        weights = torch.split(self.radial(edges.radii).unsqueeze(1), self.channels, dim=2)
        degrees = torch.split(pair, self.sizes, dim=1)
        pair = torch.cat([x * weight for x, weight in zip(degrees, weights)], dim=1)  # (3)
        hidden = gated(self.message1(pair, edges.harmonics))
        message = gated(self.message2(hidden, edges.harmonics))  # (4)
        return message * envelope(edges.radii, self.cutoff).to(message.dtype).view(-1, 1, 1)

    def node_attributes(self, edges: EdgeFeatures, n_local: int) -> Tensor:
        """Attributes of atoms (n_local, M2): 1 in degree 0, sums of harmonics in others; (6)."""
        harmonics = edges.harmonics
        near = envelope(edges.radii, self.cutoff).to(harmonics.dtype).unsqueeze(1)
        sums = harmonics.new_zeros(n_local, harmonics.shape[1])
        sums = sums.index_add(0, edges.receivers, harmonics * near) * self.norm
        return torch.cat([torch.ones_like(sums[:, :1]), sums[:, 1:]], dim=1)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, M, C) to (N, C)."""
        return features[:, 0]


def segnn_layers(config: SEGNNConfig, n_species: int, mean_neighbors: float) -> list[SEGNNLayer]:
    """Layers of ``architecture: segnn``.

    Raises:
        ValueError: the degree of the edges is so low that the first messages cannot reach
            ``l_max``.
    """
    if 2 * config.edge_degree < config.l_max:
        raise ValueError(
            f"`l_max_edge` is {config.edge_degree} and l_max {config.l_max}; two products with the "
            f"edges' harmonics must reach it: give `l_max_edge` {(config.l_max + 1) // 2} or more"
        )
    last = config.layers - 1
    return [
        SEGNNLayer(config, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
