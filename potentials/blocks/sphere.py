"""Functions on the sphere: real spherical harmonics, coupling tensors, Lebedev grids.

Components of degree l are in the order of e3nn with "component" normalisation: the squares of the
2l + 1 values for a unit vector sum to 2l + 1.
"""

# Annotations are not postponed in this file: inside a tuple, TorchScript cannot resolve those of a
# NamedTuple (github.com/pytorch/pytorch/issues/95858).

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.fusable import Fusable
from tesseral.potentials.blocks.geometry import lengths_and_directions


def degree_slice(l: int) -> slice:  # noqa: E741
    """Slice of the 2l + 1 components of degree l among (l_max + 1)²."""
    return slice(l * l, (l + 1) * (l + 1))


def degree_of(components: int) -> int:
    """The degree l_max of (l_max + 1)² components."""
    return math.isqrt(components) - 1


def degree_sizes(l_max: int) -> list[int]:
    """Number of components of each degree 0 … l_max."""
    return [2 * degree + 1 for degree in range(l_max + 1)]


def coupling(l1: int, l2: int, l3: int) -> Tensor:
    """Real Wigner 3j tensor (2l1+1, 2l2+1, 2l3+1), float64, of Frobenius norm sqrt(2 l3 + 1).

    With this norm the product of two fields of unit variance per component has unit variance.
    """
    from e3nn import o3  # imported here, because it takes a second, as long as PyTorch

    tensor: Tensor = o3.wigner_3j(l1, l2, l3, dtype=torch.float64) * (2 * l3 + 1) ** 0.5
    return tensor


class _NextDegree(ExactBuffers):
    """One step of the recursion: harmonics of degree l from those of degree l - 1."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        table = coupling(1, degree - 1, degree)
        # At the polar axis y only m = 0 is nonzero, with the value sqrt(2l + 1). This fixes scale
        # and sign of the step.
        pole = table[1, degree - 1, degree] * 3**0.5 * (2 * degree - 1) ** 0.5
        table = table * ((2 * degree + 1) ** 0.5 / pole)
        self.register_buffer("table", table.flatten(0, 1), persistent=False)
        self.table: Tensor

    def forward(self, first: Tensor, previous: Tensor) -> Tensor:
        product = first.unsqueeze(2) * previous.unsqueeze(1)
        values: Tensor = product.flatten(1) @ self.table.to(first.dtype)
        return values


class Harmonics(nn.Module):
    """Real spherical harmonics of degree 0 … l_max by the recursion Y_l ∝ (Y_1 ⊗ Y_{l-1})_l."""

    def __init__(self, l_max: int) -> None:
        """Make the recursion tables.

        Args:
            l_max: highest degree.
        """
        super().__init__()
        self.l_max = l_max
        self.steps = nn.ModuleList(_NextDegree(degree) for degree in range(2, l_max + 1))

    def forward(self, directions: Tensor) -> Tensor:
        """Harmonics (E, (l_max+1)²) of unit vectors (E, 3), differentiable any number of times."""
        first = directions * 3**0.5
        values = [torch.ones_like(directions[:, :1])]
        if self.l_max > 0:
            values.append(first)
        for step in self.steps:
            values.append(step(first, values[-1]))
        return torch.cat(values, dim=1)


class EdgeFeatures(NamedTuple):
    """E directed edges as the input of layers."""

    harmonics: Tensor  # (E, M)  of the directions, in the dtype of the features
    radii: Tensor  # (E,)    lengths in Å, float64
    senders: Tensor  # (E,)
    receivers: Tensor  # (E,)    sorted


class EdgeHarmonics(Fusable):
    """Harmonics of the edges' directions, and their lengths."""

    def __init__(self, l_max: int) -> None:
        """Make the tables of the reference form.

        Args:
            l_max: highest degree.
        """
        super().__init__()
        self.l_max = l_max
        self.recursion = Harmonics(l_max)

    def forward(self, vectors: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Harmonics (E, (l_max+1)²) of ``dtype`` and lengths (E,) Å of vectors (E, 3) Å float64."""
        if self.fused and vectors.is_cpu:
            harmonics, radii = torch.ops.tesseral.edge_harmonics(vectors, self.l_max, dtype)
            return harmonics, radii
        radii, directions = lengths_and_directions(vectors)
        harmonics = self.recursion(directions).to(dtype)
        return harmonics, radii


@lru_cache
def lebedev_degrees() -> dict[int, int]:
    """Numbers of points of the Lebedev rules by the degree that they integrate exactly."""
    from scipy.integrate import lebedev_rule  # imported here because it is slow

    degrees = [*range(3, 33, 2), *range(35, 132, 6)]
    return {lebedev_rule(degree)[0].shape[1]: degree for degree in degrees}


def smallest_rule(degree: int) -> int:
    """Number of points of the smallest Lebedev rule that integrates ``degree`` exactly."""
    return min(points for points, exact in lebedev_degrees().items() if exact >= degree)


def sphere_grid(points: int, l_max: int) -> tuple[Tensor, Tensor]:
    """Matrices from harmonic components to values on a Lebedev grid and back.

    Args:
        points: number of grid points P of a Lebedev rule (6, 14, 26, 38, 50, 74, 86, 110, …).
        l_max: highest degree; M = (l_max + 1)².

    Returns:
        ``to_grid`` (P, M) and ``from_grid`` (M, P), float64; ``from_grid @ to_grid`` is the unit
        matrix if the rule integrates degree 2 l_max.

    Raises:
        ValueError: there is no Lebedev rule with this number of points.
    """
    from scipy.integrate import lebedev_rule  # imported here because it is slow

    if points not in lebedev_degrees():
        known = ", ".join(str(p) for p in list(lebedev_degrees())[:12])
        raise ValueError(f"no Lebedev rule has {points} points; use one of {known}, …")
    nodes, weights = lebedev_rule(lebedev_degrees()[points])
    to_grid = Harmonics(l_max)(torch.from_numpy(nodes.T.copy()))
    from_grid = (to_grid * torch.from_numpy(weights / weights.sum()).unsqueeze(1)).T
    return to_grid, from_grid.contiguous()


def representations(rotations: Tensor, l_max: int) -> list[Tensor]:
    """D_l(R), (B, 2l+1, 2l+1), of l = 1 … l_max for orthogonal R (B, 3, 3) float64.

    Computed from harmonics of rotated points, Y_l(R n) = D_l(R) Y_l(n); the matrix exponentials of
    e3nn take a hundred times as long.
    """
    to_grid, from_grid = sphere_grid(smallest_rule(2 * l_max), l_max)
    points = to_grid[:, 1:4] / 3**0.5
    turned = (points @ rotations.mT).flatten(0, 1)
    matrices = (from_grid @ Harmonics(l_max)(turned).unflatten(0, (-1, len(points)))).mT
    slices = [degree_slice(degree) for degree in range(1, l_max + 1)]
    return [matrices[:, part, part] for part in slices]
