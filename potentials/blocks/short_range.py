"""Join of a potential to the nuclear repulsion where its training data end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tesseral.data.units import contact_radius
from tesseral.potentials.blocks.geometry import lengths_and_directions
from tesseral.potentials.blocks.zbl import NuclearRepulsion

WIDTH = 0.1  # of the join, as a fraction of the inner radius; csrc/potential.h has the same number


class ShortRange(NuclearRepulsion):
    """Distances below an inner radius, which the layers see longer than they are.

    A pair at a distance r below its inner radius r0 is seen at s(r): equal to r at r0, with a slope
    that falls smoothly (C²) from 1 to 0 within the width w = ``WIDTH`` · r0, and r0 - w/2 further
    inside. The pair energy Z(r) - Z(s(r)) of the nuclear repulsion Z is added. So the difference
    between the potential and Z stays as it is at the end of the training data, and nothing changes
    beyond r0.
    """

    def __init__(self, elements: Sequence[int], inner: Sequence[float]) -> None:
        """Make the tables of element pairs.

        Args:
            elements: atomic numbers, in the order of the species index.
            inner: inner radii r0 (Å), as ``flat_pairs`` returns them.
        """
        super().__init__(elements)
        self.width = WIDTH
        self.register_buffer("inner", square_pairs(inner, len(elements)), persistent=False)
        self.inner: Tensor

    def forward(
        self, vectors: Tensor, species: Tensor, senders: Tensor, receivers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Edge vectors (E, 3) Å as the layers see them, and energies (N,) eV of the atoms.

        Args:
            vectors: (E, 3) Å, float64.
            species: (N,) index into the elements.
            senders: (E,).
            receivers: (E,).
        """
        energies = torch.zeros(species.shape[0], dtype=vectors.dtype, device=vectors.device)
        squared = (vectors * vectors).sum(1).detach()
        limits = self.inner[species[senders], species[receivers]]
        close = (squared < limits * limits).nonzero().squeeze(1)
        if close.shape[0] == 0:
            return vectors, energies
        radii, directions = lengths_and_directions(vectors[close])
        inner, receivers = limits[close], receivers[close]
        depth = ((inner - radii) / (self.width * inner)).clamp(
            max=1.0
        )  # 0 at r0, 1 inside the join
        bend = depth**4 * (2.5 - 3.0 * depth + depth * depth)
        seen = inner * (1.0 - self.width * (depth - bend))
        first, second = species[senders[close]], species[receivers]
        pair = self.repulsion(radii, first, second) - self.repulsion(seen, first, second)
        moved = vectors.index_copy(0, close, directions * seen.unsqueeze(1))
        return moved, energies.index_add(0, receivers, 0.5 * pair)


def inner_radii(elements: Sequence[int], fraction: float, cutoff: float) -> Tensor:
    """Inner radii (n, n) Å of n elements: a fraction of the sums of their contact radii.

    They are at most 0.8 of the cutoff (Å), so that the join ends before it.
    """
    radius = torch.tensor([contact_radius(z) for z in elements], dtype=torch.float64)
    return (fraction * (radius[:, None] + radius)).clamp(max=0.8 * cutoff)


def flat_pairs(square: Tensor) -> tuple[float, ...]:
    """Distances of element pairs (n, n), as the n (n + 1) / 2 of the upper triangle by rows.

    They are rounded to 0.001 Å, down, so that a distance that occurs is not below them.
    """
    rows, columns = torch.triu_indices(len(square), len(square))
    return tuple((1000 * square[rows, columns]).floor().div(1000).tolist())


def square_pairs(flat: Sequence[float], n: int) -> Tensor:
    """The symmetric table (n, n), float64, of which ``flat_pairs`` made a list."""
    rows, columns = torch.triu_indices(n, n)
    square = torch.zeros(n, n, dtype=torch.float64)
    square[rows, columns] = square[columns, rows] = torch.tensor(flat, dtype=torch.float64)
    return square
