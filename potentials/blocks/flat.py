"""Features with a separate number of channels for each degree, as one flat row per atom.

A row contains the degrees l = 0 … l_max in order, each as (2l + 1, C_l) with the channels last:
degree l of N atoms is a view (N, 2l + 1, C_l). With equal channels this is (N, M, C), flattened.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def degree_widths(channels: list[int]) -> list[int]:
    """Columns of each degree, (2l + 1) C_l, of flat rows with ``channels`` C_0 … C_l_max."""
    return [(2 * degree + 1) * number for degree, number in enumerate(channels)]


class FlatLinear(nn.Module):
    """``DegreeLinear`` for flat rows; on request with separate matrices for every element."""

    def __init__(
        self,
        channels_in: list[int],
        channels_out: list[int],
        *,
        n_species: int = 1,
        scale: float = 1.0,
        bias: bool = False,
    ) -> None:
        """Make weights (n_species, C_in, C_out) per degree that preserve the variance of the input.

        Args:
            channels_in: C_l of the input degrees.
            channels_out: C_l of the result, for at least as many degrees; degrees that
                ``channels_in`` does not have are zero.
            n_species: number of elements with separate matrices; 1 to share them.
            scale: factor of the input until it is calibrated.
            bias: add a constant (C_0,) to the scalars of the result, initially zero.
        """
        super().__init__()
        self.sizes = degree_widths(channels_in)
        self.width = sum(degree_widths(channels_out))
        self.register_buffer("scale", torch.full((len(channels_in), 1, 1), scale))
        self.scale: Tensor
        self.weights = nn.ParameterList(
            torch.randn(n_species, c_in, c_out) * c_in**-0.5
            for c_in, c_out in zip(channels_in, channels_out, strict=False)
        )
        self.bias = nn.Parameter(torch.zeros(channels_out[0])) if bias else None

    def forward(self, features: Tensor, species: Tensor | None = None) -> Tensor:
        """Rows (N, D_in) to (N, D_out); species (N,) if elements have separate matrices."""
        n_atoms = features.shape[0]
        parts = torch.split(features, self.sizes, dim=1)
        results: list[Tensor] = []
        for degree, weight in enumerate(self.weights):
            matrices = self.scale[degree] * weight
            part = parts[degree].reshape(n_atoms, 2 * degree + 1, weight.shape[1])
            if species is None or matrices.shape[0] == 1:
                result = part @ matrices[0]
            else:
                result = part @ matrices[species]
            if degree == 0 and self.bias is not None:
                result = result + self.bias
            results.append(result.flatten(1))
        rows = torch.cat(results, dim=1)
        return nn.functional.pad(rows, (0, self.width - rows.shape[1]))


class FlatNorm(nn.Module):
    """Flat rows divided by their size, times a learned factor of each channel.

    With D = l_max + 1 degrees, the size of a row is the root of
    ``1/D Σ_l (2l + 1)^-2 Σ_m,c x[l m c]²``, which rotations and reflections do not change. This is
    the norm of Nequix (Koker et al., arXiv 2508.16067).
    """

    def __init__(self, channels: list[int]) -> None:
        """Make factors with which a row of independent numbers of unit variance keeps its size.

        Args:
            channels: C_l of the rows.
        """
        super().__init__()
        self.floor = 1e-12  # added to the square of the size, so that a row of zeros stays one
        self.sizes = degree_widths(channels)
        self.shares = [
            1 / (len(channels) * (2 * degree + 1) ** 2) for degree in range(len(channels))
        ]
        usual = sum(share * size for share, size in zip(self.shares, self.sizes)) ** 0.5
        self.weights = nn.ParameterList(torch.full((number,), usual) for number in channels)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, D) to rows of the same shape."""
        parts = torch.split(rows, self.sizes, dim=1)
        squared = torch.full_like(rows[:, :1], self.floor)
        results: list[Tensor] = []
        for degree, weight in enumerate(self.weights):
            part = parts[degree]
            squared = squared + self.shares[degree] * part.square().sum(dim=1, keepdim=True)
            factors = weight.repeat(2 * degree + 1)
            results.append(part * factors)
        return torch.cat(results, dim=1) * squared.rsqrt()


def perceptron(enter: int, hidden: int, leave: int) -> nn.Sequential:
    """A network with one hidden layer for scalars (N, enter); its input is calibrated."""
    return nn.Sequential(FlatLinear([enter], [hidden]), nn.SiLU(), nn.Linear(hidden, leave))
