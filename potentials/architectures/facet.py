"""Facet: spline convolutions and node mixing on the sphere (arXiv 2509.08418, with changes).

Each layer sums the features of the neighbours with radial splines and harmonics (equation numbers
as in docs/understand/theory.md), mixes channels, and multiplies the field of each atom with itself
on a grid of the sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.mixing import ACTIVATIONS, ORDERS, DegreeLinear, SphereMixing
from tesseral.potentials.blocks.point_groups import invariant_functions
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig


@dataclass(frozen=True, kw_only=True)
class FacetConfig(PotentialConfig):
    """Facet: spline convolutions and node mixing on the sphere.

    Args:
        l_max: highest degree of the atoms' spherical-harmonic features.
        mixings: mixings on the sphere in each layer; each raises the body order.
        l_max_edge: highest degree of the edges' harmonics. Default: l_max.
        l_max_message: highest degree of the features passed from one layer to the next, at most
            l_max. A lower value makes all convolutions but the first cheaper.
        grid_channels: channels of the mixing on the sphere.
        grid_points: number of points of the Lebedev grid. Default: the smallest exact grid of each
            mixing for ``product``, 194 for ``silu`` (rotation error below 0.5 meV/Å).
        activation: ``product`` (exactly equivariant) or ``silu`` (equivariant to the accuracy of
            the grid).
        order: number of factors of ``product``, 2 to 4. Inference is not compiled for more than 2:
            MD takes three times as long with 3 (docs/understand/systems.md).
        relaxed: allow training to break the rotation and reflection symmetry as far as the data do
            (external field, substrate, polar phase).
        group: point group that a relaxed potential keeps exactly, as Schönflies (C4v, C∞v or Cinfv)
            or Hermann–Mauguin symbol (4mm); its main axis is z. Default: none.
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
    group: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(1, "mixings", "grid_channels")
        self._require(0, "l_max", "l_max_message", "l_max_edge")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"`activation` {self.activation!r} is not one of {ACTIVATIONS}")
        if self.order not in ORDERS:
            raise ValueError(
                f"`order` is {self.order}; a product on the sphere can have {ORDERS[0]} to "
                f"{ORDERS[-1]} factors"
            )
        if self.activation != "product" and self.order != 2:
            raise ValueError(
                f"`order` is {self.order}, but `activation` {self.activation!r} multiplies "
                "nothing; leave `order` out, or use `activation='product'`"
            )
        if self.relaxed and self.l_max < 1:
            raise ValueError(
                "`relaxed` needs directions; with `l_max` 0 there are none: use 1 or more"
            )
        if self.group is not None:
            if not self.relaxed:
                raise ValueError(
                    f"`group` is {self.group!r}, but the potential has all rotations and "
                    "reflections; add `relaxed=True`, or leave `group` out"
                )
            invariant_functions(self.group, 1)

    @property
    def edge_degree(self) -> int:
        """``l_max_edge``, or ``l_max`` if it is not given."""
        return self.l_max if self.l_max_edge is None else self.l_max_edge

    @property
    def message_degree(self) -> int:
        """``l_max_message``, but at most ``l_max``."""
        return min(self.l_max_message, self.l_max)

    @property
    def has_grid_error(self) -> bool:
        """True for ``silu``; the grid of ``product`` is exact."""
        return self.activation != "product"


class FacetLayer(ExactBuffers):
    """Message passing and mixing: (N, M_in, C) to (N, M_out, C)."""

    def __init__(
        self,
        config: FacetConfig,
        n_species: int,
        mean_neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        """Make the weights; the input of the first layer and the output of the last are scalars."""
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
        if config.relaxed:  # functions on the sphere without their mean, which is in `bias`
            shape = (config.mixings, n_species, (config.l_max + 1) ** 2 - 1, channels)
            self.broken = nn.Parameter(torch.zeros(shape))
        kept = invariant_functions(config.group, config.l_max) if config.group else None
        self.register_buffer("kept", kept, persistent=False)  # (M - 1, M - 1)
        self.kept: Tensor | None

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
        broken = self.broken_functions()
        for k, mixing in enumerate(self.mixings):
            if broken is not None:
                field = field + nn.functional.pad(broken[k], (0, 0, 1, 0))[species]  # (7)
            mixed = mixing(field, species)  # (5)
            field = field[:, : mixed.shape[1]] + mixed
        return field

    def broken_functions(self) -> Tensor | None:
        """The learned functions on the sphere, (mixings, S, M - 1, C), or None if not relaxed."""
        broken: Tensor | None = self.broken
        if broken is not None and self.kept is not None:
            broken = self.kept.to(broken.dtype) @ broken
        return broken

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, M, C) to (N, C)."""
        return features[:, 0]


def facet_layers(config: FacetConfig, n_species: int, mean_neighbors: float) -> list[FacetLayer]:
    """Layers of ``architecture: facet``."""
    last = config.layers - 1
    return [
        FacetLayer(config, n_species, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
