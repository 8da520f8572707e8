"""Search for the neighbours of atoms on a GPU, by cell lists (``csrc/neighbors.h``)."""

from __future__ import annotations

from collections.abc import Callable

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
    kernels: Kernels,
    positions: Tensor,
    structure: Tensor,
    boxes: Tensor,
    inverses: Tensor,
    pbc: Tensor,
    cutoff: float,
    check: Callable[[Tensor, Tensor], None] = lambda sizes, heights: None,
) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of atoms of the same of G systems closer than the cutoff, sorted by receiver.

    Args:
        kernels: kernels compiled from ``SOURCE``.
        positions: (N, 3) Å, float64, on the device of the kernels.
        structure: (N,) index of the system of each atom, sorted, on the device. No system is empty.
        boxes: (G, 3, 3) Å, on the CPU; rows are vectors; in directions that are not periodic any
            that complete it.
        inverses: (G, 3, 3) inverses of the boxes, on the CPU.
        pbc: (G, 3) or (3,) bool, on the CPU, periodic directions.
        cutoff: cutoff (Å).
        check: called before the search with the numbers of atoms (G,) and the lengths (G, 3) Å that
            the systems take across their faces; may raise an error.

    Returns:
        Senders (E,), receivers (E,) and shifts (E, 3) on the device.
    """
    device, atoms = positions.device, len(positions)
    periodic = pbc.expand(len(boxes), 3)
    sizes, system = torch.bincount(structure, minlength=len(boxes)), structure.to(torch.int32)
    box, inverse, wrapped = (
        each.to(device).contiguous() for each in (boxes, inverses, periodic.to(torch.int32))
    )
    fractions, wraps, inside = (torch.empty_like(positions) for _ in range(3))
    about = system, inverse, wrapped, positions.contiguous()
    kernels("wrap_atoms", atoms, 1, atoms, *about, fractions, wraps)
    low, extent = _extents(fractions, sizes, periodic)
    heights, sizes = extent / inverses.norm(dim=1), sizes.cpu()
    check(sizes, heights)
    bins = _bins(heights, cutoff, sizes)
    # A little more, because a coordinate may be rounded into the next bin.
    reach = (cutoff * (1 + 1e-9) * bins / heights).ceil().clamp(max=1e9)
    reach = torch.where(heights > 0, reach, 0.0)
    axes = torch.stack([bins, reach, periodic], dim=2).to(torch.int32)
    ends = bins.prod(dim=1).cumsum(0).to(torch.int64)
    base = torch.cat([ends.new_zeros(1), ends[:-1]]).to(torch.int32)
    scale = torch.where(extent > 0, bins / extent, 0.0)
    grids = system, box, axes.to(device), base.to(device)
    home, bin_of = system.new_empty(atoms, 3), system.new_empty(atoms)
    begin = low.to(device), scale.to(device), fractions
    kernels("bin_atoms", atoms, 1, atoms, *grids, *begin, inside, home, bin_of)
    in_order, order = torch.sort(bin_of, stable=True)
    borders = torch.arange(int(ends[-1]) + 1, dtype=torch.int32, device=device)
    begins = torch.searchsorted(in_order, borders, out_int32=True)
    places = atoms, *grids, float(cutoff), inside, home, begins, order.to(torch.int32)
    counts = system.new_empty(atoms)
    kernels("count_neighbors", atoms, 1, *places, counts)
    last = counts.cumsum(0)  # int64
    edges = int(last[-1])
    senders, receivers = (torch.empty(edges, dtype=torch.int64, device=device) for _ in range(2))
    shifts = positions.new_empty(edges, 3)
    kernels("write_neighbors", atoms, 1, *places, last - counts, wraps, senders, receivers, shifts)
    return senders, receivers, shifts


def _extents(fractions: Tensor, sizes: Tensor, periodic: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest fraction, and range of fractions, of the atoms of systems, (G, 3) on the CPU.

    In periodic directions they are 0 and 1.
    """
    low = torch.zeros(periodic.shape, dtype=fractions.dtype)
    if periodic.all():
        return low, torch.ones_like(low)
    lowest, highest = (
        torch.segment_reduce(fractions, end, lengths=sizes, unsafe=True).cpu()
        for end in ("min", "max")
    )
    return torch.where(periodic, low, lowest), torch.where(periodic, 1.0, highest - lowest)


def _bins(heights: Tensor, cutoff: float, atoms: Tensor) -> Tensor:
    """Numbers of bins (G, 3) along boxes: of half the cutoff, or wider if most were empty."""
    width = torch.full((len(heights), 1), 0.5 * cutoff, dtype=torch.float64)
    while True:
        bins = (heights / width).floor().clamp(min=1)
        many = bins.prod(dim=1) > 4 * atoms + 64
        if not many.any():
            return bins
        width[many] *= 1.3
