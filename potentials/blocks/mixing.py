"""Node-wise operations on features (N, M, C): linear maps by degree and mixing on the sphere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.fusable import Fusable
from tesseral.potentials.blocks.sphere import degree_sizes, smallest_rule, sphere_grid

ACTIVATIONS = ("product", "silu")
ORDERS = (2, 3, 4)  # numbers of factors of products
SILU_POINTS = 194  # rotation error below 0.5 meV/Å


class DegreeLinear(Fusable):
    """Equivariant linear map without bias: a matrix over channels for each degree l.

    The input is multiplied by one constant per degree, ``scale``, which ``calibrate`` sets so that
    the input of the matrices has a known size.
    """

    def __init__(
        self,
        l_max: int,
        channels_in: int,
        channels_out: int,
        *,
        scale: float = 1.0,
    ) -> None:
        """Make weights (l_max + 1, C_in, C_out) that preserve the variance of their scaled input.

        Args:
            l_max: highest degree.
            channels_in: C_in, the number of input channels.
            channels_out: C_out, the number of output channels.
            scale: factor of the input until it is calibrated.
        """
        super().__init__()
        self.register_buffer("scale", torch.full((l_max + 1, 1, 1), scale))
        self.scale: Tensor
        self.sizes = degree_sizes(l_max)
        self.weight = nn.Parameter(torch.empty(l_max + 1, channels_in, channels_out))
        nn.init.normal_(self.weight, std=channels_in**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(N, M, C_in) to (N, M, C_out)."""
        if self.fused and features.is_cpu:
            fused: Tensor = torch.ops.tesseral.degree_linear(features, self.scale * self.weight)
            return fused
        weights = (self.scale * self.weight).unbind(0)
        parts = torch.split(features, self.sizes, dim=1)
        return torch.cat([part @ weight for part, weight in zip(parts, weights)], dim=1)


def exact_grid_points(l_max: int, order: int = 2, l_out: int | None = None) -> int:
    """Size of the smallest Lebedev grid on which a product of fields is exactly equivariant.

    Args:
        l_max: highest degree of the fields.
        order: number of fields.
        l_out: highest degree of the product that is kept. Default: l_max.
    """
    return smallest_rule(order * l_max + (l_max if l_out is None else l_out))


class _Factor(nn.Module):
    """A further factor of a product: a linear map of the field, and a constant.

    It starts near 1, since products of three or four random fields have heavy tails.
    """

    def __init__(self, l_max: int, channels: int, grid_channels: int, n_species: int) -> None:
        super().__init__()
        self.linear = DegreeLinear(l_max, channels, grid_channels)
        nn.init.normal_(self.linear.weight, std=0.3 * channels**-0.5)
        self.bias = nn.Parameter(torch.ones(n_species, grid_channels))

    def forward(self, features: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M, C) and species (N,) to a field (N, M, G) and a constant field (N, 1, G)."""
        return self.linear(features), self.bias[species].unsqueeze(1)


class SphereMixing(Fusable, ExactBuffers):
    """Pointwise mixing of features as functions on the sphere, with the result in harmonics.

    ``product``: W_out [(W1 f + b_z) ⊙ (W2 f) ⊙ (W3 f + c_z) ⊙ …], a Gaunt tensor product of
    ``order`` factors (arXiv 2401.10216; on a grid of the sphere as in arXiv 2506.13523). It is
    exactly equivariant, since the grid integrates degree order · l_in + l_out. The constants add
    the products of fewer factors. ``silu``: W3 silu(V silu(W1 f + b_z)), equivariant only to the
    accuracy of the grid. The weights do not depend on the grid. The compiled form, for products of
    two factors, sums over the few nonzero Gaunt coefficients and needs no grid.
    """

    __constants__ = ["fused", "product", "pair"]

    def __init__(
        self,
        l_max_in: int,
        l_max_out: int,
        channels: int,
        grid_channels: int,
        grid_points: int | None,
        activation: str,
        n_species: int,
        order: int = 2,
    ) -> None:
        """Make the weights and the grid.

        Args:
            l_max_in: highest degree of the input features.
            l_max_out: highest degree of the result.
            channels: C, the number of channels.
            grid_channels: number of channels on the grid.
            grid_points: number of points of a Lebedev rule. Default: the smallest exact rule for
                ``product``, 194 for ``silu``.
            activation: ``product`` or ``silu``.
            n_species: number of elements; each has its own bias on the grid.
            order: number of factors of ``product``.

        Raises:
            ValueError: the activation is unknown, or the grid is too coarse for an exact product.
        """
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        self.product = activation == "product"
        self.pair = self.product and order == 2  # only these have a compiled form
        exact = exact_grid_points(l_max_in, order, l_max_out)
        if grid_points is None:
            grid_points = exact if self.product else SILU_POINTS
        if self.product and grid_points < exact:
            raise ValueError(
                f"product mixing of order {order} at l_max {l_max_in} is exactly equivariant from "
                f"{exact} grid points on; grid_points is {grid_points}"
            )
        self.l_max_out = l_max_out
        self.enter = DegreeLinear(l_max_in, channels, grid_channels)
        self.leave = DegreeLinear(l_max_out, grid_channels, channels)
        self.bias = nn.Parameter(torch.zeros(n_species, grid_channels))
        self.second: nn.Module = (
            DegreeLinear(l_max_in, channels, grid_channels)
            if self.product
            else nn.Linear(grid_channels, grid_channels)
        )
        self.further = nn.ModuleList(
            _Factor(l_max_in, channels, grid_channels, n_species) for _ in range(order - 2)
        )
        to_grid, from_grid = sphere_grid(grid_points, max(l_max_in, l_max_out))
        to_grid = to_grid[:, : (l_max_in + 1) ** 2]
        from_grid = from_grid[: (l_max_out + 1) ** 2]
        self.register_buffer("to_grid", to_grid.contiguous(), persistent=False)
        self.register_buffer("from_grid", from_grid.contiguous(), persistent=False)
        self.to_grid: Tensor
        self.from_grid: Tensor

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        """(N, M_in, C) and species (N,) to (N, M_out, C)."""
        entered = self.enter(features)  # (N, M, G)
        bias = self.bias[species].unsqueeze(1)  # (N, 1, G), a constant function on the sphere
        if self.pair and self.fused and features.is_cpu:
            second = self.second(features)
            fused: Tensor = torch.ops.tesseral.sphere_product(entered, second, self.l_max_out)
            fused = torch.addcmul(fused, bias, second[:, : fused.shape[1]])
            left: Tensor = self.leave(fused)
            return left
        to_grid = self.to_grid.to(features.dtype)
        values = to_grid @ entered + bias  # (N, P, G)
        if self.product:
            values = values * (to_grid @ self.second(features))
            for further in self.further:
                factor, constant = further(features, species)
                values = values * (to_grid @ factor + constant)
        else:
            values = nn.functional.silu(self.second(nn.functional.silu(values)))
        mixed: Tensor = self.leave(self.from_grid.to(features.dtype) @ values)
        return mixed
