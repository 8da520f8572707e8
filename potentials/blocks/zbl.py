"""Screened nuclear repulsion at short distances (Ziegler, Biersack, Littmark 1985)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tesseral.data.units import BOHR_IN_A, COULOMB_IN_EV_A, covalent_radius
from tesseral.potentials.blocks.exact import ExactBuffers


class NuclearRepulsion(ExactBuffers):
    """Universal ZBL energy of pairs of nuclei."""

    def __init__(self, elements: Sequence[int]) -> None:
        """Make the tables of element pairs.

        Args:
            elements: atomic numbers, in the order of the species index.
        """
        super().__init__()
        charges = torch.tensor(elements, dtype=torch.float64)
        screening = charges**0.23
        self.register_buffer("charge", COULOMB_IN_EV_A * charges.outer(charges), persistent=False)
        self.register_buffer(
            "inverse_length",
            (screening[:, None] + screening) / (0.8854 * BOHR_IN_A),
            persistent=False,
        )
        self.charge: Tensor
        self.inverse_length: Tensor

    def repulsion(self, radii: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Energies (E,) eV of pairs of species (E,) at distances (E,) Å float64; finite at 0."""
        x = radii * self.inverse_length[first, second]
        screen = (
            0.1818 * torch.exp(-3.2 * x)
            + 0.5099 * torch.exp(-0.9423 * x)
            + 0.2802 * torch.exp(-0.4029 * x)
            + 0.02817 * torch.exp(-0.2016 * x)
        )
        safe = torch.where(radii > 0, radii, torch.ones_like(radii))
        return self.charge[first, second] / safe * screen


class ZBLRepulsion(NuclearRepulsion):
    """ZBL energy of the pairs, switched off smoothly (C²) at the sum of the covalent radii."""

    def __init__(self, elements: Sequence[int]) -> None:
        """Make the tables of element pairs.

        Args:
            elements: atomic numbers, in the order of the species index.
        """
        super().__init__(elements)
        radius = torch.tensor([covalent_radius(z) for z in elements], dtype=torch.float64)
        self.register_buffer("outer", radius[:, None] + radius, persistent=False)
        self.outer: Tensor

    def forward(self, radii: Tensor, species: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Energies (N,) eV of the atoms, half of the energy of each pair; radii (E,) Å float64."""
        first, second = species[senders], species[receivers]
        y = (radii / self.outer[first, second]).clamp(max=1.0)
        switch = 1.0 - y * y * y * (10.0 - 15.0 * y + 6.0 * y * y)
        pair = 0.5 * self.repulsion(radii, first, second) * switch
        total = torch.zeros(species.shape[0], dtype=radii.dtype, device=radii.device)
        return total.index_add(0, receivers, pair)
