"""LieConv: regular convolution on sampled elements of E(3) (Finzi et al., arXiv 2002.12880).

Every atom has a function f(Q) of rotations and reflections Q, stored at the elements of a finite
group: together with its position, a sample of elements g of E(3). The kernel is a function of
g_i⁻¹ g_j, and is a product of three (Knigge, Romero, Bekkers, arXiv 2110.13059): one of the
position of a neighbour seen from g_i, one of the rotation between two elements at the same atom,
and a matrix over channels. Nothing constrains it, so that the potential is equivariant to the
accuracy of the sample. Equation numbers are those of docs/understand/systems.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.flat import FlatLinear
from tesseral.potentials.blocks.radial import SplineRadial
from tesseral.potentials.blocks.sphere import (
    EdgeFeatures,
    Harmonics,
    degree_slice,
    smallest_rule,
    sphere_grid,
)
from tesseral.potentials.config import PotentialConfig

GROUPS = {24: "T", 120: "I"}  # by the number of elements, with the inversion
WIDENING = 4  # hidden channels of a block, in multiples of its channels


@dataclass(frozen=True, kw_only=True)
class LieConvConfig(PotentialConfig):
    """LieConv: functions of sampled rotations and reflections at each atom.

    Args:
        l_max: highest degree of the kernels.
        orientations: number of sampled rotations and reflections: 24 (group T_h) or 120 (group I_h
            of the icosahedron), which gives a smaller rotation error.
        random_orientations: turn the sample at random in each training step, so that no
            orientation is preferred.
    """

    architecture: ClassVar[str] = "lieconv"
    layers: int = 2
    channels: int = 8
    l_max: int = 2
    orientations: int = 120
    random_orientations: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(0, "l_max")
        if self.orientations not in GROUPS:
            raise ValueError(
                f"`orientations` is {self.orientations}; use one of {', '.join(map(str, GROUPS))}"
            )

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics, equal to that of the kernels."""
        return self.l_max

    @property
    def has_grid_error(self) -> bool:
        """Always true: rotations are exact to the accuracy of the sample of orientations."""
        return True


def sampled_orientations(number: int) -> Tensor:
    """Orthogonal matrices (Q, 3, 3) float64 of a finite group with the inversion.

    Args:
        number: 24 or 120.
    """
    from scipy.spatial.transform import Rotation  # imported here because it is slow

    rotations = torch.from_numpy(Rotation.create_group(GROUPS[number]).as_matrix().copy())
    return torch.cat([rotations, -rotations])


def turned_harmonics(matrices: Tensor, l_max: int) -> Tensor:
    """Matrices D (Q, M, M) float64 with Y(Qᵀ x) = Y(x) D, block-diagonal in the degrees.

    Args:
        matrices: (Q, 3, 3), orthogonal.
        l_max: highest degree; M = (l_max + 1)².
    """
    points = smallest_rule(2 * l_max)
    directions = sphere_grid(points, 1)[0][:, 1:] * 3**-0.5  # (P, 3)
    seen = (directions @ matrices).flatten(0, 1)
    harmonics = Harmonics(l_max)(seen).view(len(matrices), points, (l_max + 1) ** 2)
    tables: Tensor = sphere_grid(points, l_max)[1] @ harmonics
    return tables


class SpatialConvolution(ExactBuffers):
    """Sum over neighbours for each orientation, with the same orientation at both atoms."""

    def __init__(self, config: LieConvConfig, matrices: Tensor) -> None:
        """Make the splines, and the table of harmonics as seen from each of the matrices."""
        super().__init__()
        self.components = (config.l_max + 1) ** 2
        self.orientations = len(matrices)
        functions = self.components * config.channels
        self.radial = SplineRadial(functions, config.spline_intervals, config.cutoff)
        turned = turned_harmonics(matrices, config.l_max).transpose(0, 1).flatten(1)
        # Its square has the mean 1.
        self.register_buffer("turned", turned * self.components**-0.5, persistent=False)
        self.turned: Tensor  # (M, Q M)

    def forward(self, features: Tensor, edges: EdgeFeatures, n_out: int) -> Tensor:
        """(N, Q, C), or (N, 1, C) if all are equal, to (n_out, Q, C)."""
        channels = features.shape[2]
        radial = self.radial(edges.radii).view(-1, self.components, channels)  # (E, M, C)
        angular = edges.harmonics @ self.turned.to(features.dtype)
        kernel = angular.view(-1, self.orientations, self.components) @ radial  # (E, Q, C), (1)
        sums = features.new_zeros(n_out, self.orientations, channels)
        sent = features.index_select(0, edges.senders)
        return sums.index_add(0, edges.receivers, kernel * sent)  # (2)


class RotationConvolution(ExactBuffers):
    """Sum over the orientations of an atom."""

    def __init__(self, config: LieConvConfig, matrices: Tensor) -> None:
        """Make the weights, and the table of the functions of the rotation between two matrices.

        The functions are the elements of the matrices of ``turned_harmonics``: unlike functions of
        the angles of a rotation, they are smooth at half turns too.
        """
        super().__init__()
        self.orientations = len(matrices)
        between = (matrices.transpose(1, 2).unsqueeze(1) @ matrices).flatten(0, 1)  # Qᵀ Q'
        turned = turned_harmonics(between, config.l_max)
        parts = []
        for degree in range(config.l_max + 1):
            part = turned[:, degree_slice(degree), degree_slice(degree)].flatten(1)
            parts.append(part * (2 * degree + 1) ** 0.5)  # its square has the mean 1
        functions = torch.cat(parts, dim=1)
        self.register_buffer("functions", functions, persistent=False)
        self.functions: Tensor  # (Q Q, Σ_l (2 l + 1)²)
        self.weight = nn.Parameter(torch.randn(functions.shape[1], config.channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, Q, C) to (N, Q, C)."""
        kernel = self.functions.to(features.dtype) @ self.weight
        kernel = kernel.view(self.orientations, self.orientations, -1) / self.orientations
        return torch.einsum("qrc,nrc->nqc", kernel, features)  # (3)


class LieConvLayer(nn.Module):
    """Convolution and network of the channels: (N, Q, C) to (N, Q, C), the first from (N, 1, C)."""

    def __init__(self, config: LieConvConfig, mean_neighbors: float) -> None:
        """Make the weights."""
        super().__init__()
        channels = config.channels
        matrices = sampled_orientations(config.orientations)
        self.spatial = SpatialConvolution(config, matrices)
        self.rotation = RotationConvolution(config, matrices)
        self.mix = FlatLinear([channels], [channels], scale=mean_neighbors**-0.5)
        self.own = nn.Linear(channels, channels, bias=False)
        self.widen = nn.Linear(channels, WIDENING * channels)
        self.narrow = nn.Linear(WIDENING * channels, channels, bias=False)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        sums = self.rotation(self.spatial(features, edges, n_local))
        features = features[:n_local]
        mixed = self.mix(sums.flatten(0, 1)).view(sums.shape)
        hidden = nn.functional.silu(self.widen(mixed + self.own(features)))
        update: Tensor = self.narrow(hidden)  # (4)
        return features + update

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout, the mean over orientations: (N, Q, C) to (N, C)."""
        return features.mean(dim=1)


def lieconv_layers(
    config: LieConvConfig, n_species: int, mean_neighbors: float
) -> list[LieConvLayer]:
    """Layers of ``architecture: lieconv``."""
    return [LieConvLayer(config, mean_neighbors) for _ in range(config.layers)]
