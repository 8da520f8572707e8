"""The binding energy that atoms have on average, switched on by their neighbours.

Where the reference energies are those of isolated atoms, every atom of a crystal or molecule lies
some eV below. Were this left to the weights, the noise of so large an output would disturb the
whole training: it doubles the force errors of acetylacetone (docs/measurements/experiments.md). A
constant would be wrong for isolated atoms. So the constant is switched on with the density of
neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.radial import envelope

STEEPNESS = 8.0  # one neighbour at a bond's length is enough for nearly all of the energy


class BindingEnergy(ExactBuffers):
    """``b_z (1 − exp(−8 ρ²))`` with ``ρ = Σ_j (1 − (r_ij / r_cut)²)³``: C², zero for atoms alone.

    The compiled form is ``bind`` in ``engine/csrc/potential.h``.
    """

    def __init__(self, energies: Sequence[float], cutoff: float) -> None:
        """Store the constants.

        Args:
            energies: b in eV of each element, negative where atoms bind.
            cutoff: Å.
        """
        super().__init__()
        self.cutoff, self.steepness = cutoff, STEEPNESS
        self.register_buffer(
            "energies", torch.tensor(energies, dtype=torch.float64), persistent=False
        )
        self.energies: Tensor

    def forward(self, radii: Tensor, species: Tensor, receivers: Tensor) -> Tensor:
        """Energies (N,) eV of the atoms; radii (E,) Å float64."""
        weight = envelope(radii, self.cutoff)
        density = torch.zeros(species.shape[0], dtype=radii.dtype, device=radii.device)
        density = density.index_add(0, receivers, weight)
        switch = -torch.expm1(-self.steepness * density.square())
        return self.energies[species] * switch
