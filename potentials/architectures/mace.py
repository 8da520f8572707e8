"""MACE: products of neighbour densities (Batatia et al., arXiv 2206.07697).

A layer sums over neighbours once and multiplies the sum with itself, in the order of the trees of
``blocks/fusion.py``; other trees give other networks, for example Cormorant's. Equation numbers are
those of docs/understand/systems.md. Features are (N, M, C) with natural parity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.fusion import Fusion, parse_tree
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig

MACE_TREES = ("A", "(A A)", "((A A) A)")


@dataclass(frozen=True, kw_only=True)
class MACEConfig(PotentialConfig):
    """MACE: products of up to four neighbour densities.

    Args:
        l_max: highest degree of the densities and of the edges' harmonics.
        l_max_message: highest degree of the features passed from one layer to the next, at most
            l_max.
        trees: products, with the order in which they are contracted; A is the sum over neighbours,
            x the features of the atom. Default: A, (A A) and ((A A) A).
    """

    architecture: ClassVar[str] = "mace"
    layers: int = 2
    channels: int = 32
    l_max: int = 2
    l_max_message: int = 1
    trees: list[str] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(0, "l_max", "l_max_message")
        if not self.products:
            raise ValueError("`trees` is empty; give at least one product, or leave it out")
        for tree in self.products:
            parse_tree(tree)

    @property
    def products(self) -> tuple[str, ...]:
        """``trees``, or those of MACE if it is not given."""
        return MACE_TREES if self.trees is None else tuple(self.trees)

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics, equal to that of the densities."""
        return self.l_max


class MACELayer(nn.Module):
    """Density, products and update: (N, M_in, C) to (N, M_out, C)."""

    def __init__(
        self,
        config: MACEConfig,
        n_species: int,
        mean_neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        """Make the weights; the input of the first layer and the output of the last are scalars."""
        super().__init__()
        passed = min(config.l_max_message, config.l_max)
        l_in, l_out = 0 if first else passed, 0 if last else passed
        channels = config.channels
        self.rows = (l_out + 1) ** 2
        self.convolution = SplineConvolution(
            l_in,
            config.edge_degree,
            config.l_max,
            channels,
            config.spline_intervals,
            config.cutoff,
        )
        self.density = DegreeLinear(config.l_max, channels, channels, scale=mean_neighbors**-0.5)
        self.own = DegreeLinear(l_in, channels, channels)
        self.products = nn.ModuleList(
            Fusion(parse_tree(tree), {"A": config.l_max, "x": l_in}, l_out, channels, n_species)
            for tree in config.products
        )
        self.leave = DegreeLinear(l_out, channels, channels)

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One layer; see ``message_passing`` for the shapes."""
        sums = self.convolution(features, edges, n_local)
        density = self.density(sums)  # (1)
        own, kinds = self.own(features[:n_local]), species[:n_local]
        products = density.new_zeros(n_local, self.rows, density.shape[2])
        for product in self.products:
            products = products + product(density, own, kinds)  # (2)
        missing = max(self.rows - own.shape[1], 0)
        kept = nn.functional.pad(own, (0, 0, 0, missing))[:, : self.rows]
        update: Tensor = kept + self.leave(products)  # (3)
        return update

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, M, C) to (N, C)."""
        return features[:, 0]


def mace_layers(config: MACEConfig, n_species: int, mean_neighbors: float) -> list[MACELayer]:
    """Layers of ``architecture: mace``."""
    last = config.layers - 1
    return [
        MACELayer(config, n_species, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
