"""Facet: spline convolutions and node mixing on the sphere (arXiv 2509.08418, with changes).

Each layer sums the neighbours' features with radial splines and harmonics (equation numbers as in
docs/theory.md), mixes channels, and lets every atom's field interact with itself on a grid of the
sphere. The energy is read out after every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tesseral.potentials.binding import BindingEnergy
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.mixing import DegreeLinear, SphereMixing
from tesseral.potentials.ops.convolution import SplineConvolution
from tesseral.potentials.readout import EnergyScale, Readout
from tesseral.potentials.sphere import EdgeHarmonics
from tesseral.potentials.zbl import ZBLRepulsion


class FacetLayer(nn.Module):
    """One round of messages and mixing: (N, M_in, C) to (N, M_out, C)."""

    def __init__(
        self,
        config: PotentialConfig,
        n_species: int,
        mean_neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        """Make the weights; the first layer reads scalars only, the last one keeps scalars only."""
        super().__init__()
        l_in = 0 if first else config.message_degree
        l_out = 0 if last else config.message_degree
        channels = config.channels
        self.convolution = SplineConvolution(
            l_in,
            config.edge_degree,
            config.l_max,
            channels,
            config.spline_intervals,
            config.cutoff,
        )
        self.message = DegreeLinear(config.l_max, channels, channels, scale=mean_neighbors**-0.5)
        self.skip = DegreeLinear(l_in, channels, channels)
        self.mixings = nn.ModuleList(
            SphereMixing(
                config.l_max,
                config.l_max if i < config.mixings - 1 else l_out,
                channels,
                config.grid_channels,
                config.points,
                config.activation,
                n_species,
            )
            for i in range(config.mixings)
        )

    def forward(
        self,
        features: Tensor,
        species: Tensor,
        harmonics: Tensor,
        radii: Tensor,
        senders: Tensor,
        receivers: Tensor,
    ) -> Tensor:
        """One layer; see ``SplineConvolution.forward`` for the shapes."""
        messages = self.convolution(features, harmonics, radii, senders, receivers)  # (3)
        field: Tensor = self.message(messages)  # (N, M, C), (4)
        kept = self.skip(features)
        if kept.shape[1] < field.shape[1]:  # the first layer's features are scalars
            kept = nn.functional.pad(kept, (0, 0, 0, field.shape[1] - kept.shape[1]))
        field = field + kept
        for mixing in self.mixings:
            mixed = mixing(field, species)  # (5)
            field = field[:, : mixed.shape[1]] + mixed
        return field


class Facet(nn.Module):
    """Energy of each atom from its neighbourhood."""

    def __init__(
        self,
        config: PotentialConfig,
        elements: Sequence[int],
        *,
        reference_energies: Sequence[float] | None = None,
        binding_energies: Sequence[float] | None = None,
        energy_scale: float = 1.0,
        mean_neighbors: float = 20.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Make a potential with random weights (seed with ``torch.manual_seed``).

        Args:
            config: architecture and size.
            elements: atomic numbers, in the order of the species index.
            reference_energies: E0 in eV of each element; zeros if not given.
            binding_energies: mean binding energy in eV of each element, which atoms with neighbours
                have; none if not given.
            energy_scale: eV for one unit of network output, usually the force RMS × 1 Å.
            mean_neighbors: mean number of neighbours within the cutoff, normalises the sums.
            dtype: of weights and features; geometry and energies are float64 always.
        """
        super().__init__()
        n_species = len(elements)
        if reference_energies is None:
            reference_energies = [0.0] * n_species
        self.cutoff = config.cutoff
        self.harmonics = EdgeHarmonics(config.edge_degree)
        self.embedding = nn.Parameter(torch.randn(n_species, 1, config.channels))
        self.layers = nn.ModuleList(
            FacetLayer(config, n_species, mean_neighbors, i == 0, i == config.layers - 1)
            for i in range(config.layers)
        )
        self.readouts = nn.ModuleList(Readout(config.channels) for _ in range(config.layers))
        self.scale = EnergyScale(
            torch.tensor(reference_energies, dtype=torch.float64), energy_scale
        )
        self.binding = (
            None if binding_energies is None else BindingEnergy(binding_energies, config.cutoff)
        )
        self.zbl = ZBLRepulsion(elements) if config.zbl else None
        self.to(dtype)

    def forward(
        self, species: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor
    ) -> Tensor:
        """Atomic energies.

        Args:
            species: (N,) index into ``elements``.
            vectors: (E, 3) Å float64, sender to receiver.
            senders: (E,).
            receivers: (E,) sorted.

        Returns:
            (N,) eV, float64.
        """
        dtype = self.embedding.dtype
        harmonics, radii = self.harmonics(vectors, dtype)  # (E, M), (E,)
        features = self.embedding[species]  # (N, 1, C)
        output = torch.zeros(species.shape[0], dtype=dtype, device=species.device)
        for layer, readout in zip(self.layers, self.readouts):
            features = layer(features, species, harmonics, radii, senders, receivers)
            output = output + readout(features[:, 0])  # (6)
        energies: Tensor = self.scale(output, species)  # (1)
        if self.binding is not None:
            energies = energies + self.binding(radii, species, receivers)
        if self.zbl is not None:
            energies = energies + self.zbl(radii, species, senders, receivers)
        return energies
