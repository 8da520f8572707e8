"""Frame averaging: a network without symmetry, averaged over frames of the neighbourhood.

Any network of a field becomes invariant if it reads the field in frames that turn with the
neighbourhood, and its results are averaged over the frames (Puny et al., arXiv 2110.03336). With a
finite number of frames, such as the principal axes, the result jumps where two axes become
equivalent (Dym, Lawrence, Siegel, arXiv 2402.16077). Here each pair of close neighbours is a frame,
with a weight that vanishes smoothly where the frame is undefined. Equation numbers are those of
docs/understand/systems.md. With the elements of a point group as frames of all atoms, the potential
has the symmetry of this group only. Features are scalars, (N, 1, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution, neighbor_table
from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.flat import FlatLinear, perceptron
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.point_groups import group_elements
from tesseral.potentials.blocks.radial import envelope
from tesseral.potentials.blocks.sphere import EdgeFeatures, Harmonics, smallest_rule, sphere_grid
from tesseral.potentials.config import PotentialConfig

NO_FRAME = 0.1  # weight of a result of zero, beside those of the frames
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class FramesConfig(PotentialConfig):
    """Frame averaging: a network without symmetry, averaged over weighted frames.

    Args:
        l_max: highest degree of the density that the network reads.
        frame_cutoff: distance (Å) below which pairs of neighbours are frames; the time grows with
            the square of their number. Default: 0.6 of the cutoff.
        group: point group to average over instead of frames, as Schönflies (C4v) or
            Hermann–Mauguin symbol (4mm), with the main axis z: the potential has these symmetries
            and no other (external field, substrate).
    """

    architecture: ClassVar[str] = "frames"
    layers: int = 2
    channels: int = 16
    l_max: int = 2
    frame_cutoff: float | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(1, "l_max")
        if self.group is not None:
            group_elements(self.group)
            if self.frame_cutoff is not None:
                raise ValueError(
                    f"`frame_cutoff` is {self.frame_cutoff}, but with `group` there are no frames "
                    "of neighbours; leave it out"
                )
        if not 0 < self.frame_radius <= self.cutoff:
            raise ValueError(
                f"`frame_cutoff` is {self.frame_radius} Å; it must be positive and at most "
                f"`cutoff` ({self.cutoff} Å)"
            )

    @property
    def frame_radius(self) -> float:
        """``frame_cutoff``, or 0.6 of the cutoff if it is not given."""
        return 0.6 * self.cutoff if self.frame_cutoff is None else self.frame_cutoff

    @property
    def relaxed(self) -> bool:
        """True with a ``group``."""
        return self.group is not None

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics, equal to that of the density."""
        return self.l_max


class PairFrames(nn.Module):
    """Frames of pairs of neighbours, with their weights."""

    def __init__(self, cutoff: float) -> None:
        """Store the cutoff (Å) of the neighbours."""
        super().__init__()
        self.cutoff, self.tiny = cutoff, TINY

    def forward(self, edges: EdgeFeatures, n_local: int) -> tuple[Tensor, Tensor, Tensor]:
        """Axes (F, 3, 3) of the frames as rows, weights (F,) and atoms (F,); (2)."""
        near = (edges.radii < self.cutoff).nonzero().squeeze(1)
        table = neighbor_table(edges.receivers[near], n_local)
        first, second = table.unsqueeze(2), table.unsqueeze(1)
        none = near.shape[0]
        pairs = ((first < none) & (second < none) & (first != second)).nonzero()  # (F, 3)
        atoms = pairs[:, 0]
        left, right = near[table[atoms, pairs[:, 1]]], near[table[atoms, pairs[:, 2]]]
        directions = edges.harmonics[:, 1:4] * 3**-0.5
        z, other = directions[left], directions[right]
        across = other - (other * z).sum(1, keepdim=True) * z
        squared = across.square().sum(1, keepdim=True)  # sin² of the angle
        x = across * (squared + self.tiny).rsqrt()
        axes = torch.stack([x, torch.linalg.cross(z, x), z], dim=1)
        close = envelope(edges.radii, self.cutoff).to(axes.dtype)
        weights = close[left] * close[right] * squared.squeeze(1).pow(3)
        return axes, weights, atoms


class FrameAverage(ExactBuffers):
    """Invariant result of a network that reads values of a field at fixed points of the sphere."""

    def __init__(self, network: nn.Module, l_max: int, cutoff: float) -> None:
        """Take a network.

        Args:
            network: any module from (F, P C), the values at P = ``points_of(l_max)`` points, to
                (F, C').
            l_max: highest degree of the field.
            cutoff: cutoff (Å) of the frames.
        """
        super().__init__()
        self.network, self.no_frame = network, NO_FRAME
        self.frames = PairFrames(cutoff)
        self.harmonics = Harmonics(l_max)
        points = sphere_grid(points_of(l_max), 1)[0][:, 1:] * 3**-0.5
        mirrored = points * points.new_tensor([1.0, -1.0, 1.0])
        self.register_buffer("points", points, persistent=False)
        self.register_buffer(
            "mirror", torch.cdist(mirrored, points).argmin(1), persistent=False
        )  # the rule contains the mirror images of its points
        self.points: Tensor
        self.mirror: Tensor

    def forward(self, field: Tensor, edges: EdgeFeatures) -> Tensor:
        """Field (n_local, M, C) of each atom to (n_local, C')."""
        axes, weights, atoms = self.frames(edges, field.shape[0])
        directions = self.points.to(axes.dtype) @ axes  # (F, P, 3)
        harmonics = self.harmonics(directions.flatten(0, 1))
        harmonics = harmonics.view(directions.shape[0], directions.shape[1], field.shape[1])
        values = harmonics @ field.index_select(0, atoms)  # (F, P, C)
        both = 0.5 * (
            self.network(values.flatten(1)) + self.network(values[:, self.mirror].flatten(1))
        )
        sums = both.new_zeros(field.shape[0], both.shape[1])
        sums = sums.index_add(0, atoms, weights.unsqueeze(1) * both)
        total = weights.new_full((field.shape[0],), self.no_frame).index_add(0, atoms, weights)
        result: Tensor = sums / total.unsqueeze(1)  # (3)
        return result


class GroupAverage(ExactBuffers):
    """Mean over a point group of a network that reads values of a field at fixed points."""

    def __init__(self, network: nn.Module, l_max: int, group: str) -> None:
        """Take a network.

        Args:
            network: as in ``FrameAverage``.
            l_max: highest degree of the field.
            group: symbol of a finite point group.
        """
        super().__init__()
        self.network = network
        points = sphere_grid(points_of(l_max), 1)[0][:, 1:] * 3**-0.5
        turned = points @ group_elements(group).mT  # (G, P, 3)
        self.order = len(turned)
        values = Harmonics(l_max)(turned.flatten(0, 1))
        self.register_buffer("values", values, persistent=False)  # (G P, M)
        self.values: Tensor

    def forward(self, field: Tensor, edges: EdgeFeatures) -> Tensor:
        """Field (n_local, M, C) of each atom to (n_local, C')."""
        values = self.values.to(field.dtype) @ field  # (n_local, G P, C)
        rows = values.reshape(field.shape[0] * self.order, -1)
        mean: Tensor = self.network(rows).view(field.shape[0], self.order, -1).mean(1)  # (3')
        return mean


class FramesLayer(nn.Module):
    """Density, average over frames and update: (N, 1, C) to (N, 1, C)."""

    def __init__(self, config: FramesConfig, mean_neighbors: float) -> None:
        """Make the weights."""
        super().__init__()
        l_max, channels = config.l_max, config.channels
        self.convolution = SplineConvolution(
            0, l_max, l_max, channels, config.spline_intervals, config.cutoff
        )
        self.density = DegreeLinear(l_max, channels, channels, scale=mean_neighbors**-0.5)
        network = perceptron(points_of(l_max) * channels, 4 * channels, channels)
        self.average = (
            FrameAverage(network, l_max, config.frame_radius)
            if config.group is None
            else GroupAverage(network, l_max, config.group)
        )
        self.keep = FlatLinear([2 * channels], [channels])
        self.add = FlatLinear([channels], [channels])
        self.leave = FlatLinear([channels], [channels])

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        x = features[:n_local, 0]
        density = self.density(self.convolution(features, edges, n_local))  # (1)
        seen = self.add(self.average(density, edges))
        own = self.keep(torch.cat([x, density[:, 0]], dim=1))
        update: Tensor = self.leave(nn.functional.silu(own + seen))  # (4)
        return (x + update).unsqueeze(1)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, 1, C) to (N, C)."""
        return features[:, 0]


def points_of(l_max: int) -> int:
    """Number of points at which the network reads a field of degree ``l_max``."""
    return smallest_rule(2 * l_max)


def frames_layers(config: FramesConfig, n_species: int, mean_neighbors: float) -> list[FramesLayer]:
    """Layers of ``architecture: frames``."""
    return [FramesLayer(config, mean_neighbors) for _ in range(config.layers)]
