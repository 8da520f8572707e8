"""NequIP: steerable linear convolutions with gates (Batzner et al., arXiv 2101.03164).

In the tradition of tensor field networks (Thomas et al., arXiv 1802.08219), gates are the only
operations that are not linear in the steerable features. Numbers in brackets are those of
docs/understand/systems.md. Features are flat rows, (N, 1, Σ_l (2l + 1) C_l), so that each degree
has its own number of channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.flat import FlatLinear, FlatNorm, degree_widths
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig

GATES = ("sigmoid", "silu")


@dataclass(frozen=True, kw_only=True)
class NequIPConfig(PotentialConfig):
    """NequIP: steerable linear convolutions with gates.

    Args:
        l_max: highest degree of the atoms' spherical-harmonic features and of the edges' harmonics.
        channels_by_degree: channels of degree 0, 1, … l_max; the first must equal ``channels``.
            Default: ``channels`` in every degree.
        kinks: distances (Å) at which the slope of the radial functions may have a kink; each a
            multiple of cutoff / spline_intervals. A kink at the cutoff gives forces with a kink
            there.
        gates: function of the gates of steerable features: ``sigmoid`` or ``silu``.
        odd_paths: also couple degrees with an odd sum. Features then have no parity, and the
            energies of mirror images may differ.
        element_self_connection: use a separate self-connection matrix for each element.
        biases: add a learned constant to the scalar outputs of linear maps.
        embedding_channels: channels of the elements' embedding, the input of the first layer.
            Default: ``channels``.
        field_norm: divide what an atom has gathered by its size, before the gates, and multiply
            each channel by a learned factor.
        linear_readout: read the energy from the scalars of the last layer only, with a linear map.
    """

    architecture: ClassVar[str] = "nequip"
    layers: int = 3
    channels: int = 32
    l_max: int = 2
    channels_by_degree: list[int] | None = None
    kinks: list[float] | None = None
    gates: str = "sigmoid"
    odd_paths: bool = False
    element_self_connection: bool = True
    biases: bool = False
    embedding_channels: int | None = None
    field_norm: bool = False
    linear_readout: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self._require(0, "l_max")
        if self.embedding_channels is not None:
            self._require(1, "embedding_channels")
        if self.gates not in GATES:
            raise ValueError(f"`gates` are {self.gates!r}; use one of {', '.join(GATES)}")
        channels = self.channels_by_degree
        if channels is not None and (
            len(channels) != self.l_max + 1 or channels[0] != self.channels or min(channels) < 1
        ):
            raise ValueError(
                f"`channels_by_degree` is {channels}; with l_max {self.l_max} it has "
                f"{self.l_max + 1} numbers of 1 or more, the first of them channels "
                f"({self.channels})"
            )

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics, equal to that of the features."""
        return self.l_max


class NequIPLayer(nn.Module):
    """Interaction block and gate: (N, 1, D_in) to (N, 1, D_out)."""

    def __init__(
        self,
        config: NequIPConfig,
        n_species: int,
        mean_neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        """Make the weights; the input of the first layer and the output of the last are scalars."""
        super().__init__()
        channels = config.channels_by_degree or [config.channels] * (config.l_max + 1)
        channels_in = [config.embedding_channels or config.channels] if first else channels
        self.channels = list(channels[:1] if last else channels)
        gated = [sum(self.channels), *self.channels[1:]]  # with a gate for each steerable channel
        paths = convolution_paths(
            len(channels_in) - 1, config.edge_degree, len(gated) - 1, odd=config.odd_paths
        )
        self.enter = FlatLinear(channels_in, channels_in, bias=config.biases)
        self.convolution = PathConvolution(
            paths, channels_in, config.spline_intervals, config.cutoff, config.kinks or ()
        )
        self.leave = FlatLinear(
            self.convolution.channels_out, gated, scale=mean_neighbors**-0.5, bias=config.biases
        )
        own = n_species if config.element_self_connection else 1
        self.keep = FlatLinear(channels_in, gated, n_species=own)
        self.norm = FlatNorm(gated) if config.field_norm else None
        self.silu_gates = config.gates == "silu"

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One interaction; see ``message_passing`` for the shapes."""
        x = features[:, 0]
        sent = self.enter(x)  # (1)
        messages = self.convolution(sent, edges, n_local)  # (2)
        field = self.leave(messages) + self.keep(x[:n_local], species[:n_local])  # (3)
        if self.norm is not None:
            field = self.norm(field)
        return gate(field, self.channels, self.silu_gates).unsqueeze(1)  # (4)

    def invariants(self, features: Tensor) -> Tensor:
        """Invariant features for the readout: (N, 1, D) to (N, C_0)."""
        return features[:, 0, : self.channels[0]]


def gate(rows: Tensor, channels: list[int], silu: bool = False) -> Tensor:
    """SiLU of scalars; channels of other degrees times a sigmoid of their own scalar.

    Args:
        rows: flat rows, with the scalars followed by the gates in degree 0.
        channels: C_l of the result.
        silu: use a SiLU instead of a sigmoid for the gates.

    Returns:
        (N, D), flat.
    """
    widths = degree_widths(channels)
    parts = torch.split(rows, channels + widths[1:], dim=1)  # scalars, gates, other degrees
    results = [nn.functional.silu(parts[0])]
    for degree in range(1, len(channels)):
        steerable = parts[len(channels) + degree - 1]
        steerable = steerable.reshape(rows.shape[0], 2 * degree + 1, channels[degree])
        opening = nn.functional.silu(parts[degree]) if silu else parts[degree].sigmoid()
        results.append((steerable * opening.unsqueeze(1)).flatten(1))
    return torch.cat(results, dim=1)


def nequip_layers(config: NequIPConfig, n_species: int, mean_neighbors: float) -> list[NequIPLayer]:
    """Layers of ``architecture: nequip``."""
    last = config.layers - 1
    return [
        NequIPLayer(config, n_species, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
