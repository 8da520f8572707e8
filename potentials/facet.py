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
        n_local: int,
    ) -> Tensor:
        """One layer; see ``SplineConvolution.forward`` for the shapes; (n_local, M_out, C)."""
        n_out: int | None = None
        if n_local < features.shape[0]:  # ghosts receive nothing
            n_out = n_local
        messages = self.convolution(features, harmonics, radii, senders, receivers, n_out)  # (3)
        if n_out is not None:
            features, species = features[:n_local], species[:n_local]
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
        self,
        species: Tensor,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        n_local: int | None = None,
    ) -> Tensor:
        """Atomic energies.

        Args:
            species: (N,) index into ``elements``.
            vectors: (E, 3) Å float64, sender to receiver.
            senders: (E,).
            receivers: (E,) sorted.
            n_local: atoms with an energy, the first ones; all if not given. Those behind only send
                to the first layer; where another layer needs them, whoever has split the atoms
                calls ``begin`` and ``layer`` and exchanges features in between.

        Returns:
            (n_local,) eV, float64.
        """
        local = species.shape[0] if n_local is None else n_local
        features, harmonics, radii, energies = self.begin(
            species, vectors, senders, receivers, local
        )
        for number in range(len(self.layers)):
            features, more = self.layer(
                number, features, species, harmonics, radii, senders, receivers, local
            )
            energies = energies + more
        return energies

    @torch.jit.export
    def begin(
        self, species: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor, n_local: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What comes before the layers; arguments as ``forward``.

        Returns:
            features (N, 1, C) of all atoms, harmonics (E, M) and lengths (E,) Å of the edges,
            energies (n_local,) eV without the layers'.
        """
        harmonics, radii = self.harmonics(vectors, self.embedding.dtype)
        energies = self.scale.reference_energies[species[:n_local]]
        if self.binding is not None:
            energies = energies + self.binding(radii, species[:n_local], receivers)
        if self.zbl is not None:
            energies = energies + self.zbl(radii, species, senders, receivers)[:n_local]
        return self.embedding[species], harmonics, radii, energies

    @torch.jit.export
    def layer(
        self,
        number: int,
        features: Tensor,
        species: Tensor,
        harmonics: Tensor,
        radii: Tensor,
        senders: Tensor,
        receivers: Tensor,
        n_local: int,
    ) -> tuple[Tensor, Tensor]:
        """One layer and its readout.

        Args:
            number: of the layer, from 0.
            features: (N, M_in, C) of all atoms.
            species: (N,).
            harmonics: (E, M).
            radii: (E,) Å.
            senders: (E,).
            receivers: (E,) sorted, below n_local.
            n_local: atoms that get new features.

        Returns:
            features (n_local, M_out, C) and energies (n_local,) eV.
        """
        output = features
        for k, layer in enumerate(self.layers):  # TorchScript cannot index by a variable
            if k == number:
                output = layer(features, species, harmonics, radii, senders, receivers, n_local)
        scalars = output[:, 0]
        readings = scalars[:, 0]
        for k, readout in enumerate(self.readouts):
            if k == number:
                readings = readout(scalars)  # (6)
        energies: Tensor = self.scale(readings, species[:n_local])  # (1)
        return output, energies
