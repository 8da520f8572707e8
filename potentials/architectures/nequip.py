"""NequIP: steerable linear convolutions with gates (Batzner et al., arXiv 2101.03164).

The line of tensor field networks (Thomas et al., arXiv 1802.08219): all that is not linear in the
steerable features is a gate. Numbers in brackets are those of docs/understand/systems.md. Features
are flat rows, (N, 1, Σ_l (2l + 1) C_l), so that each degree has channels of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.flat import FlatLinear, degree_widths
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.blocks.sphere import EdgeFeatures
from tesseral.potentials.config import PotentialConfig

GATES = ("sigmoid", "silu")


@dataclass(frozen=True, kw_only=True)
class NequIPConfig(PotentialConfig):
    """NequIP: steerable linear convolutions with gates.

    Args:
        l_max: highest degree of the atoms' spherical-harmonic features and of the edges' harmonics.
        channels_by_degree: channels of degree 0, 1, … l_max, the first as many as ``channels``; as
            many in all degrees if not given.
        kinks: distances in Å at which the radial functions may have a kink in their slope; each a
            multiple of cutoff / spline_intervals. At the cutoff it makes forces end in a kink.
        gates: function that makes the gates of steerable features from scalars, ``sigmoid`` or
            ``silu``.
        odd_paths: couple degrees with an odd sum too. Features then have no parity, and the
            energies of mirror images may differ.
        element_self_connection: give each element its own matrices for what an atom keeps of its
            features.
        biases: add a learned constant to the scalars that linear maps give.
        linear_readout: read the energy from the last layer's scalars only, by a linear map.
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
    linear_readout: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot make a model."""
        super().__post_init__()
        self._require(0, "l_max")
        if self.gates not in GATES:
            raise ValueError(f"gates are {self.gates!r}; use one of {', '.join(GATES)}")
        channels = self.channels_by_degree
        if channels is not None and (
            len(channels) != self.l_max + 1 or channels[0] != self.channels or min(channels) < 1
        ):
            raise ValueError(
                f"channels_by_degree is {channels}; with l_max {self.l_max} it has "
                f"{self.l_max + 1} numbers of 1 or more, the first of them channels "
                f"({self.channels})"
            )

    @property
    def edge_degree(self) -> int:
        """That of the features."""
        return self.l_max


class NequIPLayer(nn.Module):
    """An interaction block and its gate: (N, 1, D_in) to (N, 1, D_out)."""

    def __init__(
        self,
        config: NequIPConfig,
        n_species: int,
        mean_neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        """Make the weights; the first layer reads scalars only, the last one makes scalars only."""
        super().__init__()
        channels = config.channels_by_degree or [config.channels] * (config.l_max + 1)
        channels_in = channels[:1] if first else channels
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
        self.silu_gates = config.gates == "silu"

    def forward(
        self, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> Tensor:
        """One interaction; see ``message_passing`` for the shapes."""
        x = features[:, 0]
        sent = self.enter(x)  # (1)
        messages = self.convolution(sent, edges, n_local)  # (2)
        field = self.leave(messages) + self.keep(x[:n_local], species[:n_local])  # (3)
        return gate(field, self.channels, self.silu_gates).unsqueeze(1)  # (4)

    def invariants(self, features: Tensor) -> Tensor:
        """What the energy is read from: (N, 1, D) to (N, C_0)."""
        return features[:, 0, : self.channels[0]]


def gate(rows: Tensor, channels: list[int], silu: bool = False) -> Tensor:
    """SiLU of scalars; other degrees times a sigmoid of a scalar of their own, channel by channel.

    Args:
        rows: flat, the scalars followed by the gates in degree 0.
        channels: C_l of the result.
        silu: gate with a SiLU instead of a sigmoid.

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
    """The layers of ``architecture: nequip``."""
    last = config.layers - 1
    return [
        NequIPLayer(config, n_species, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
