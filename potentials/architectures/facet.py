"""Facet: spline convolutions and node mixing on the sphere (arXiv 2509.08418, with changes).

Each layer sums the neighbours' features with radial splines and harmonics (equation numbers as in
docs/understand/theory.md), mixes channels, and lets every atom's field interact with itself on a
grid of the sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.mixing import ACTIVATIONS, ORDERS, DegreeLinear, SphereMixing
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class FacetConfig(PotentialConfig):
    """Facet: spline convolutions and node mixing on the sphere.

    Args:
        l_max: highest degree of the atoms' spherical-harmonic features.
        mixings: rounds of mixing on the sphere in each layer; each raises the body order.
        l_max_edge: highest degree of the edges' harmonics; l_max if not given.
        l_max_message: highest degree of the features that a layer hands to the next one, l_max at
            most; a low one makes the convolutions after the first cheaper.
        grid_channels: channels of the mixing on the sphere.
        grid_points: points of the Lebedev grid; if not given, the smallest exact one of each
            mixing for ``product`` and 194 for ``silu`` (rotation error below 0.5 meV/Å).
        activation: ``product`` (exactly equivariant) or ``silu`` (to the accuracy of the grid).
        order: number of factors of ``product``, 2 to 4. More than 2 are slower, since inference is
            not compiled then: MD takes three times as long with 3 (docs/understand/systems.md).
        relaxed: let training break the symmetry of rotations and reflections, as far as the data
            do: under an external field, on a substrate, in a polar phase.
    """

    architecture: ClassVar[str] = "facet"
    layers: int = 2
    channels: int = 16
    l_max: int = 4
    mixings: int = 1
    l_max_edge: int | None = None
    l_max_message: int = 2
    grid_channels: int = 32
    grid_points: int | None = None
    activation: str = "product"
    order: int = 2
    relaxed: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot make a model."""
        super().__post_init__()
        self._require(1, "mixings", "grid_channels")
        self._require(0, "l_max", "l_max_message")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is not one of {ACTIVATIONS}")
        if self.order not in ORDERS:
            raise ValueError(
                f"order is {self.order}; a product on the sphere can have {ORDERS[0]} to "
                f"{ORDERS[-1]} factors"
            )
        if self.activation != "product" and self.order != 2:
            raise ValueError(
                f"order is {self.order}, but activation {self.activation!r} multiplies nothing; "
                "leave order out, or use activation product"
            )
        if self.relaxed and self.l_max < 1:
            raise ValueError("relaxed needs directions; with l_max 0 there are none: use 1 or more")

    @property
    def edge_degree(self) -> int:
        """``l_max_edge``, or ``l_max`` if that is not given."""
        return self.l_max if self.l_max_edge is None else self.l_max_edge

    @property
    def message_degree(self) -> int:
        """``l_max_message``, or ``l_max`` where that is lower."""
        return min(self.l_max_message, self.l_max)

    @property
    def has_grid_error(self) -> bool:
        """With ``silu``; the grid of ``product`` is exact."""
        return self.activation != "product"


class FacetLayer(nn.Module):
    """One round of messages and mixing: (N, M_in, C) to (N, M_out, C)."""

    def __init__(
        self,
        config: FacetConfig,
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
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes; (n_local, M_out, C)."""
        messages = self.convolution(features, edges, n_local)  # (3)
        if n_local < features.shape[0]:  # ghosts receive nothing
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


def facet_layers(config: FacetConfig, n_species: int, mean_neighbors: float) -> list[FacetLayer]:
    """The layers of ``architecture: facet``."""
    last = config.layers - 1
    return [
        FacetLayer(config, n_species, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
