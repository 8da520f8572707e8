"""PONITA: group convolutions over positions and orientations (Bekkers et al., arXiv 2310.02970).

Every atom has a function f(n) of the orientation n, stored on a Lebedev grid of the sphere. The
kernel is a product of three: one of the edge vector and n, one of two orientations of the same
atom, and a matrix over channels. Angles enter only through dot products with orientations, so the
potential is equivariant to the accuracy of the grid. Equation numbers are those of
docs/understand/systems.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.radial import SplineRadial
from tesseral.potentials.blocks.sphere import EdgeFeatures, degree_slice, sphere_grid
from tesseral.potentials.config import PotentialConfig

WIDENING = 4  # hidden channels of a block, in multiples of its channels


@dataclass(frozen=True, kw_only=True)
class PONITAConfig(PotentialConfig):
    """PONITA: functions of the orientation on a grid of the sphere.

    Args:
        l_max: highest degree of the kernels.
        orientations: number of points of the Lebedev grid of orientations; more points give a
            smaller rotation error.
        random_orientations: rotate the grid of orientations at random in each training step, so
            that no orientation is preferred.
    """

    architecture: ClassVar[str] = "ponita"
    layers: int = 2
    channels: int = 32
    l_max: int = 2
    orientations: int = 26
    random_orientations: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(0, "l_max")

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics, equal to that of the kernels."""
        return self.l_max

    @property
    def has_grid_error(self) -> bool:
        """Always true: rotations are exact to the accuracy of the grid of orientations."""
        return True


class SpatialConvolution(ExactBuffers):
    """Sum over neighbours for each orientation, with the result in harmonics.

    The kernel of an orientation is a series of Legendre polynomials of the angle between it and
    the edge, with splines of the length as coefficients.
    """

    def __init__(self, config: PONITAConfig) -> None:
        """Make the splines and the tables of the grid."""
        super().__init__()
        degrees = config.l_max + 1
        self.degrees = degrees
        self.radial = SplineRadial(
            degrees * config.channels, config.spline_intervals, config.cutoff
        )
        to_grid, from_grid = sphere_grid(config.orientations, config.l_max)
        # P_l(x·n) is a sum of products of harmonics of x and n; here its square has the mean 1.
        legendre = torch.zeros(degrees**2, config.orientations, degrees, dtype=torch.float64)
        for degree in range(degrees):
            part = to_grid.T[degree_slice(degree)] / (2 * degree + 1) ** 0.5
            legendre[degree_slice(degree), :, degree] = part
        self.register_buffer("legendre", legendre.flatten(1) * degrees**-0.5, persistent=False)
        self.register_buffer("from_grid", from_grid, persistent=False)
        self.legendre: Tensor  # (M, O L)
        self.from_grid: Tensor  # (M, O)

    def forward(self, features: Tensor, edges: EdgeFeatures, n_out: int) -> Tensor:
        """(N, O, C) to (n_out, M, C); arguments as ``SplineConvolution.forward``."""
        orientations, channels = features.shape[1], features.shape[2]
        radial = self.radial(edges.radii).view(-1, self.degrees, channels)  # (E, L, C)
        angular = edges.harmonics @ self.legendre.to(features.dtype)
        kernel = angular.view(-1, orientations, self.degrees) @ radial  # (E, O, C), (1)
        sums = torch.zeros_like(features[:n_out])
        sent = features.index_select(0, edges.senders)
        sums = sums.index_add(0, edges.receivers, kernel * sent)  # (2)
        return self.from_grid.to(features.dtype) @ sums


class PonitaLayer(ExactBuffers):
    """Convolution and ConvNeXt block: (N, O, C) to (N, O, C), the first from (N, 1, C)."""

    def __init__(self, config: PONITAConfig, mean_neighbors: float, first: bool) -> None:
        """Make the weights; the first layer sums in harmonics, since its input has no grid."""
        super().__init__()
        l_max, channels = config.l_max, config.channels
        self.convolution: nn.Module = SpatialConvolution(config)
        if first:
            self.convolution = SplineConvolution(
                0, l_max, l_max, channels, config.spline_intervals, config.cutoff
            )
        self.spherical = DegreeLinear(l_max, channels, channels, scale=mean_neighbors**-0.5)
        self.own = nn.Linear(channels, channels, bias=False)
        self.widen = nn.Linear(channels, WIDENING * channels)
        self.narrow = nn.Linear(WIDENING * channels, channels, bias=False)
        to_grid, from_grid = sphere_grid(config.orientations, l_max)
        self.register_buffer("to_grid", to_grid, persistent=False)
        self.register_buffer("weights", from_grid[:1], persistent=False)
        self.to_grid: Tensor  # (O, M)
        self.weights: Tensor  # (1, O)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        sums = self.convolution(features, edges, n_local)
        features = features[:n_local]
        field = self.to_grid.to(features.dtype) @ self.spherical(sums)  # (N, O, C), (3)
        hidden = nn.functional.silu(self.widen(field + self.own(features)))
        update: Tensor = self.narrow(hidden)  # (4)
        return features + update

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout, the mean over orientations: (N, O, C) to (N, C)."""
        return (self.weights.to(features.dtype) @ features).squeeze(1)


def ponita_layers(config: PONITAConfig, n_species: int, mean_neighbors: float) -> list[PonitaLayer]:
    """Layers of ``architecture: ponita``."""
    return [PonitaLayer(config, mean_neighbors, first=i == 0) for i in range(config.layers)]
