"""Facet: spline convolutions and node mixing on the sphere (arXiv 2509.08418, with changes).

Each layer sums the neighbours' features with radial splines and harmonics (equation numbers as in
docs/understand/theory.md), mixes channels, and lets every atom's field interact with itself on a
grid of the sphere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.config import PotentialConfig


class FacetLayer(nn.Module):
    """One round of messages and mixing: (N, M_in, C) to (N, M_out, C)."""

    def __init__(
        self,
        config: PotentialConfig,
        n_species: int,
        mean_neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        """Make the weights; the first layer reads scalars only, the last one keeps scalars only."""
        super().__init__()
        l_in = 0 if first else config.message_degree
        l_out = 0 if last else config.message_degree
        channels = config.channels
        self.convolution = SplineConvolution(
            l_in,
            config.edge_degree,
            config.l_max,
            channels,
            config.spline_intervals,
            config.cutoff,
        )
        self.message = DegreeLinear(config.l_max, channels, channels, scale=mean_neighbors**-0.5)
        self.skip = DegreeLinear(l_in, channels, channels)
        self.mixings = nn.ModuleList(
            SphereMixing(
                config.l_max,
                config.l_max if i < config.mixings - 1 else l_out,
                channels,
                config.grid_channels,
                config.grid_points,
                config.activation,
                n_species,
                config.order,
            )
            for i in range(config.mixings)
        )
        self.broken: nn.Parameter | None = None
        if config.relaxed:  # functions on the sphere without their mean, which `bias` stands for
            shape = (config.mixings, n_species, (config.l_max + 1) ** 2 - 1, channels)
            self.broken = nn.Parameter(torch.zeros(shape))

    def forward(
        self,
        features: Tensor,
        species: Tensor,
        harmonics: Tensor,
        radii: Tensor,
        senders: Tensor,
        receivers: Tensor,
        n_local: int,
    ) -> Tensor:
        """One layer; see ``SplineConvolution.forward`` for the shapes; (n_local, M_out, C)."""
        n_out: int | None = None
        if n_local < features.shape[0]:  # ghosts receive nothing
            n_out = n_local
        messages = self.convolution(features, harmonics, radii, senders, receivers, n_out)  # (3)
        if n_out is not None:
            features, species = features[:n_local], species[:n_local]
        field: Tensor = self.message(messages)  # (N, M, C), (4)
        kept = self.skip(features)
        if kept.shape[1] < field.shape[1]:  # the first layer's features are scalars
            kept = nn.functional.pad(kept, (0, 0, 0, field.shape[1] - kept.shape[1]))
        field = field + kept
        broken = self.broken
        for k, mixing in enumerate(self.mixings):
            if broken is not None:
                field = field + nn.functional.pad(broken[k], (0, 0, 1, 0))[species]  # (7)
            mixed = mixing(field, species)  # (5)
            field = field[:, : mixed.shape[1]] + mixed
        return field

    def invariants(self, features: Tensor) -> Tensor:
        """What the energy is read from: (N, M, C) to (N, C)."""
        return features[:, 0]


def facet_layers(
    config: PotentialConfig, n_species: int, mean_neighbors: float
) -> list[FacetLayer]:
    """The layers of ``architecture: facet``."""
    last = config.layers - 1
    return [
        FacetLayer(config, n_species, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
