"""Potential of any architecture: the parts shared by all, around the layers of one.

Elements are embedded, layers pass messages, and after each layer (or the last one only) an energy
is read from invariant features. An architecture is a file with its configuration, a module for one
layer and a function that makes all layers. A layer provides

    forward(features, species, edges, n_local)
        -> features (n_local, R', C') of the first n_local atoms
    invariants(features) -> (n_local, channels)

and may give the rows and channels of its features any meaning. The input of the first layer is the
embedding (N, 1, embedding_channels). A layer uses only features of senders and receivers, and sums
over edges only for receivers, which are local. Therefore a potential can be distributed over
processes that exchange features between layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tesseral.data.graph import Edges
from tesseral.potentials.architectures.table import ARCHITECTURES
from tesseral.potentials.blocks.binding import BindingEnergy
from tesseral.potentials.blocks.geometry import random_orthogonal
from tesseral.potentials.blocks.readout import EnergyScale, LinearReadout, Readout
from tesseral.potentials.blocks.short_range import ShortRange
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics
from tesseral.potentials.blocks.uncertainty import Calibration, Uncertainty
from tesseral.potentials.blocks.zbl import ZBLRepulsion
from tesseral.potentials.config import PotentialConfig


class MessagePassing(nn.Module):
    """Atomic energies from the neighbourhoods of the atoms."""

    def __init__(
        self,
        config: PotentialConfig,
        elements: Sequence[int],
        *,
        reference_energies: Sequence[float] | None = None,
        binding_energies: Sequence[float] | None = None,
        energy_scale: float = 1.0,
        mean_neighbors: float = 20.0,
        inner_radii: Sequence[float] = (),
        other_levels: Sequence[Sequence[float]] = (),
        uncertainty: Calibration | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Make a potential with random weights (seed with ``torch.manual_seed``).

        Args:
            config: architecture and size.
            elements: atomic numbers, in the order of the species index.
            reference_energies: E0 (eV) of each element. Default: zeros.
            binding_energies: mean binding energy (eV) of each element, for atoms with neighbours.
                Default: none.
            energy_scale: energy (eV) of one unit of network output, usually the force RMS × 1 Å.
            mean_neighbors: mean number of neighbours within the cutoff, which normalises the sums.
            inner_radii: distances (Å) of pairs of elements, as `flat_pairs` returns them, below
                which `ShortRange` joins the potential to the repulsion of the nuclei. Default:
                none.
            other_levels: E0 (eV) of each element at each further level of theory in a joint
                training. The species of an atom is then ``level × n_elements + element``, and each
                level has an embedding that is added to that of the element; all other weights are
                shared. ``one_level`` extracts one level.
            uncertainty: calibration of `Uncertainty`, whose arrays belong to the weights. Default:
                the potential does not know its uncertainty.
            dtype: precision of weights and features; geometry and energies are always float64.
        """
        super().__init__()
        n_species = len(elements)
        if reference_energies is None:
            reference_energies = [0.0] * n_species
        self.cutoff, self.n_species, self.levels = config.cutoff, n_species, 1 + len(other_levels)
        self.random_orientations = config.random_orientations
        self.harmonics = EdgeHarmonics(config.edge_degree)
        embedded = config.embedding_channels or config.channels
        self.embedding = nn.Parameter(torch.randn(n_species, 1, embedded))
        make_layers = ARCHITECTURES[config.architecture].layers
        self.layers = nn.ModuleList(make_layers(config, n_species, mean_neighbors))
        self.first_readout = config.layers - 1 if config.linear_readout else 0
        readout = LinearReadout if config.linear_readout else Readout
        self.readouts = nn.ModuleList(
            readout(config.channels) for _ in range(self.first_readout, config.layers)
        )
        self.n_features = (1 if config.linear_readout else 2) * config.channels * len(self.readouts)
        references = torch.tensor([reference_energies, *other_levels], dtype=torch.float64)
        self.scale = EnergyScale(references.flatten(), energy_scale)
        self.binding = (
            None if binding_energies is None else BindingEnergy(binding_energies, config.cutoff)
        )
        self.level_embedding = (
            nn.Parameter(torch.zeros(self.levels, 1, embedded)) if other_levels else None
        )
        self.zbl = ZBLRepulsion(elements) if config.zbl else None
        self.short_range = ShortRange(elements, inner_radii) if inner_radii else None
        self.uncertainty: Uncertainty | None = None
        if uncertainty is not None:
            self.uncertainty = Uncertainty(n_species, self.n_features, uncertainty)
        self.to(dtype)

    def forward(self, species: Tensor, edges: Edges, n_local: int | None = None) -> Tensor:
        """Atomic energies.

        Args:
            species: (N,) index into ``elements``.
            edges: edges between the atoms; receivers are below n_local.
            n_local: number of atoms with an energy, which are the first ones. Default: all. The
                other atoms only send to the first layer. If further layers need them, a program
                that splits the atoms calls ``begin`` and ``layer`` and exchanges features in
                between.

        Returns:
            (n_local,) eV, float64.
        """
        local = species.shape[0] if n_local is None else n_local
        features, seen, energies = self.begin(species, edges, local)
        for number in range(len(self.layers)):
            features, more = self.layer(number, features, species, seen, local)
            energies = energies + more
        return energies

    def begin(
        self, species: Tensor, edges: Edges, n_local: int
    ) -> tuple[Tensor, EdgeFeatures, Tensor]:
        """Input of the layers; arguments as in ``forward``.

        Returns:
            features (N, 1, C) of all atoms, edges for the layers, energies (n_local,) eV without
            the contributions of the layers.
        """
        kinds, species = species, self.elements_of(species)
        vectors = edges.vectors
        energies = self.scale.reference_energies[kinds[:n_local]]
        if self.short_range is not None:
            vectors, pairs = self.short_range(vectors, species, edges.senders, edges.receivers)
            energies = energies + pairs[:n_local]
        if self.random_orientations and self.training:
            # Rotating the grid of all layers is the inverse rotation of the structure.
            vectors = vectors @ random_orthogonal().to(vectors.device)
        harmonics, radii = self.harmonics(vectors, self.embedding.dtype)
        features = self.embedding[species]
        if self.level_embedding is not None:
            features = features + self.level_embedding[kinds // self.n_species]
        if self.binding is not None:
            energies = energies + self.binding(radii, species[:n_local], edges.receivers)
        if self.zbl is not None:
            pairs = self.zbl(radii, species, edges.senders, edges.receivers)
            energies = energies + pairs[:n_local]
        return features, EdgeFeatures(harmonics, radii, edges.senders, edges.receivers), energies

    def layer(
        self, number: int, features: Tensor, species: Tensor, edges: EdgeFeatures, n_local: int
    ) -> tuple[Tensor, Tensor]:
        """One layer and its readout.

        Args:
            number: index of the layer, from 0.
            features: (N, R, C) of all atoms.
            species: (N,) as in ``forward``.
            edges: edges returned by ``begin``; receivers are below n_local.
            n_local: number of atoms that get new features.

        Returns:
            features (n_local, R', C') and energies (n_local,) eV.
        """
        output, scalars = features, features[:, 0]
        species = self.elements_of(species)
        for k, layer in enumerate(self.layers):  # TorchScript cannot index by a variable
            if k == number:
                output = layer(features, species, edges, n_local)
                scalars = layer.invariants(output)  # type: ignore[operator]
        readings = 0.0 * scalars[:, 0]  # without a readout, but differentiable
        for k, readout in enumerate(self.readouts):
            if k + self.first_readout == number:
                readings = readout(scalars)
        energies: Tensor = self.scale(readings, species[:n_local])
        return output, energies

    def with_features(self, species: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """Energies, and the features of which the readouts are linear functions.

        Args:
            species: (N,) as in ``forward``.
            edges: edges between the atoms.

        Returns:
            Energies (N,) eV float64, and the features (N, D) of all readouts side by side.
        """
        energies, rows = self.layer_features(species, edges)
        invariants = [scalars for _, scalars in rows]
        kinds = self.elements_of(species)
        for readout, scalars in zip(self.readouts, invariants[self.first_readout :], strict=True):
            energies = energies + self.scale(readout(scalars), kinds)
        return energies, self.readout_features(invariants)

    def readout_features(self, invariants: Sequence[Tensor]) -> Tensor:
        """The features of ``with_features``, (N, D), from the invariants (N, C) of each layer."""
        pairs = zip(self.readouts, invariants[self.first_readout :], strict=True)
        rows = [cast("Readout", readout).features(scalars) for readout, scalars in pairs]
        return torch.cat(rows, dim=1)

    def layer_features(
        self, species: Tensor, edges: Edges
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Features of the atoms after each layer, and their invariants.

        Args:
            species: (N,) as in ``forward``.
            edges: edges between the atoms.

        Returns:
            Energies (N,) eV without the readouts; for each layer its features (N, R, C), whose rows
            and channels are described in the file of the architecture, and invariants (N, C').
        """
        atoms, rows = species.shape[0], []
        features, seen, energies = self.begin(species, edges, atoms)
        kinds = self.elements_of(species)
        for layer in self.layers:
            features = layer(features, kinds, seen, atoms)
            rows.append((features, layer.invariants(features)))  # type: ignore[operator]
        return energies, rows

    def elements_of(self, species: Tensor) -> Tensor:
        """The species without the level of theory."""
        return species if self.levels == 1 else species % self.n_species


def one_level(weights: Mapping[str, Tensor], n_species: int, level: int = 0) -> dict[str, Tensor]:
    """Weights of a potential for one of its levels of theory only.

    Args:
        weights: ``state_dict`` of a potential with one or more levels.
        n_species: number of its elements.
        level: number of the level, from 0.
    """
    kept = dict(weights)
    levels = kept.pop("level_embedding", None)
    if levels is not None:
        kept["embedding"] = kept["embedding"] + levels[level]
        own = slice(level * n_species, (level + 1) * n_species)
        for name in ("scale.reference_energies", "scale.scale"):
            kept[name] = kept[name][own]
    return kept
