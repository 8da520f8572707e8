"""Search for the neighbours of atoms on a GPU, by a cell list (``csrc/neighbors.h``)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tesseral.potentials.engine.gpu.geometry import Kernels

BLOCK = 64  # threads
SOURCE = """#define TESSERAL_REAL double
#define TESSERAL_GROUP 16
#define TESSERAL_GROUPS 4
#include "neighbors.h"
"""


def search(
    kernels: Kernels, positions: Tensor, box: Tensor, inverse: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of atoms closer than the cutoff, sorted by receiver.

    Args:
        kernels: kernels compiled from ``SOURCE``.
        positions: (N, 3) Å, float64, on the device of the kernels.
        box: (3, 3) Å, on the CPU; rows are vectors; in directions that are not periodic any that
            complete it.
        inverse: inverse of the box, on the CPU.
        pbc: (3,) bool, on the CPU, periodic directions.
        cutoff: cutoff (Å).

    Returns:
        Senders (E,), receivers (E,) and shifts (E, 3) on the device.
    """
    device, atoms = positions.device, len(positions)
    fractions = positions @ inverse.to(device)
    wraps = torch.where(pbc.to(device), fractions.floor(), torch.zeros_like(fractions))
    fractions = fractions - wraps
    low, extent = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    if not pbc.all():
        lowest, highest = (ends.cpu() for ends in fractions.aminmax(dim=0))
        low = torch.where(pbc, low, lowest)
        extent = torch.where(pbc, extent, highest - lowest)
    heights = (extent / inverse.norm(dim=0)).tolist()
    bins = _bins(heights, cutoff, atoms)
    reach = [
        # A little more, because a coordinate may be rounded into the next bin.
        min(math.ceil(cutoff * (1 + 1e-9) * number / height), 10**9) if height > 0 else 0
        for number, height in zip(bins, heights)
    ]
    periodic = pbc.tolist()
    axes = [[number, far, int(wrapped)] for number, far, wrapped in zip(bins, reach, periodic)]
    number_of = torch.tensor(bins, device=device)
    scale = torch.where(extent > 0, torch.tensor(bins) / extent, torch.zeros_like(extent))
    home = ((fractions - low.to(device)) * scale.to(device)).to(torch.int64)
    home = torch.minimum(home.clamp(min=0), number_of - 1)
    bin_of = (home[:, 0] * bins[1] + home[:, 1]) * bins[2] + home[:, 2]
    in_order, order = torch.sort(bin_of, stable=True)
    borders = torch.arange(math.prod(bins) + 1, device=device)
    about = (
        *(atoms, box.to(device).contiguous(), torch.tensor(axes, dtype=torch.int32, device=device)),
        *(float(cutoff), (fractions @ box.to(device)).contiguous()),
        *(home.to(torch.int32), torch.searchsorted(in_order, borders, out_int32=True)),
        order.to(torch.int32),
    )
    counts = torch.empty(atoms, dtype=torch.int32, device=device)
    kernels("count_neighbors", atoms, 1, *about, counts)
    ends = counts.cumsum(0)  # int64
    edges = int(ends[-1])
    senders, receivers = (torch.empty(edges, dtype=torch.int64, device=device) for _ in range(2))
    shifts = positions.new_empty(edges, 3)
    found = senders, receivers, shifts
    kernels("write_neighbors", atoms, 1, *about, ends - counts, wraps.contiguous(), *found)
    return found


def _bins(heights: list[float], cutoff: float, atoms: int) -> list[int]:
    """Numbers of bins along a box: of half the cutoff, or wider if most of them were empty."""
    width = 0.5 * cutoff
    while math.prod(max(1, math.floor(height / width)) for height in heights) > 4 * atoms + 64:
        width *= 1.3
    return [max(1, math.floor(height / width)) for height in heights]
