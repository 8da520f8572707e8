"""Mean binding energy of atoms, switched on by their neighbours.

If the reference energies are those of isolated atoms, the energy of every atom in a crystal or
molecule is several eV lower. If the weights had to learn this shift, the noise of such a large
output would disturb the training: it doubles the force errors of acetylacetone
(docs/measurements/experiments.md). A constant shift would be wrong for isolated atoms. Therefore
the constant is switched on with the density of neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tesseral.potentials.blocks.exact import ExactBuffers
from tesseral.potentials.blocks.radial import envelope

STEEPNESS = 8.0  # one neighbour at bond length switches on nearly all of the energy


class BindingEnergy(ExactBuffers):
    """``b_z (1 − exp(−8 ρ²))`` with ``ρ = Σ_j (1 − (r_ij / r_cut)²)³``: C², 0 without neighbours.

    The compiled form is ``bind`` in ``engine/csrc/potential.h``.
    """

    def __init__(self, energies: Sequence[float], cutoff: float) -> None:
        """Store the constants.

        Args:
            energies: b in eV of each element, negative if atoms bind.
            cutoff: cutoff (Å).
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
