"""NequIP: steerable linear convolutions with gates (Batzner et al., arXiv 2101.03164).

The line of tensor field networks (Thomas et al., arXiv 1802.08219): all that is not linear in the
steerable features is a gate. Numbers in brackets are those of docs/understand/systems.md. Features
are flat rows, (N, 1, Σ_l (2l + 1) C_l), so that each degree has channels of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.flat import FlatLinear, degree_widths
from tesseral.potentials.blocks.path_convolution import PathConvolution
from tesseral.potentials.config import PotentialConfig


class NequIPLayer(nn.Module):
    """An interaction block and its gate: (N, 1, D_in) to (N, 1, D_out)."""

    def __init__(
        self,
        config: PotentialConfig,
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
        self,
        features: Tensor,
        species: Tensor,
        harmonics: Tensor,
        radii: Tensor,
        senders: Tensor,
        receivers: Tensor,
        n_local: int,
    ) -> Tensor:
        """One interaction; see ``message_passing`` for the shapes."""
        x = features[:, 0]
        sent = self.enter(x)  # (1)
        messages = self.convolution(sent, harmonics, radii, senders, receivers, n_local)  # (2)
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


def nequip_layers(
    config: PotentialConfig, n_species: int, mean_neighbors: float
) -> list[NequIPLayer]:
    """The layers of ``architecture: nequip``."""
    last = config.layers - 1
    return [
        NequIPLayer(config, n_species, mean_neighbors, first=i == 0, last=i == last)
        for i in range(config.layers)
    ]
