"""Source of the kernels of a potential: ``csrc`` with its degrees and numbers of channels."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from tesseral.potentials.ops import tables

CSRC = Path(__file__).with_name("csrc")
FOLDERS = (CSRC, tables.HEADER.parent)  # of the headers
SCRATCH = 48 * 1024  # bytes that the groups of a block may share on any GPU


class Sizes(NamedTuple):
    """Sizes of a potential, for which its kernels are compiled."""

    dtype: torch.dtype
    cutoff: float
    intervals: int
    species: int
    l_edge: int
    l_max: int
    channels: int  # multiple of 16
    grid: int  # channels on the sphere, multiple of 16
    layers: tuple[int, ...]  # highest degree of the features that enter each layer
    mixings: tuple[tuple[int, int], ...]  # degrees of the fields before and after each mixing

    @property
    def group(self) -> int:
        """Number of lanes that work on an atom: a warp, or half of one."""
        return 32 if self.channels % 32 == 0 and self.grid % 32 == 0 else 16

    @property
    def groups(self) -> int:
        """Number of groups of a block, as many as their scratch memory allows, at most 4."""
        every = (self.l_max + 1) ** 2
        numbers = max(2 * every * self.channels, 2 * every * (self.channels + self.group))
        return max(1, min(4, SCRATCH // (numbers * self.dtype.itemsize)))


@lru_cache
def source(sizes: Sizes) -> str:
    """The translation unit of a potential for inference."""
    lines = [f"TESSERAL_LAYER({degree})" for degree in sorted(set(sizes.layers))]
    lines += [f"TESSERAL_MIXING({into}, {out})" for into, out in sorted(set(sizes.mixings))]
    return _unit(sizes, "nodes.h", lines)


@lru_cache
def training_source(sizes: Sizes) -> str:
    """The translation unit of a potential for training."""
    every = {sizes.l_max, *sizes.layers, *(degree for pair in sizes.mixings for degree in pair)}
    products = {(into, into, out) for into, out in sizes.mixings}
    products |= {(out, into, into) for into, out in sizes.mixings}  # their gradients
    lines = [f"TESSERAL_TRAINING({degree})" for degree in sorted(set(sizes.layers))]
    lines += [f"TESSERAL_LINEAR({degree})" for degree in sorted(every)]
    lines += [f"TESSERAL_PRODUCT({a}, {b}, {out})" for a, b, out in sorted(products)]
    return _unit(sizes, "training.h", lines)


def _unit(sizes: Sizes, header: str, lines: list[str]) -> str:
    """A translation unit with the convolutions and some more kernels."""
    values = {
        "REAL": "float" if sizes.dtype == torch.float32 else "double",
        "GROUP": sizes.group,
        "GROUPS": sizes.groups,
        "CUTOFF": repr(float(sizes.cutoff)),
        "INTERVALS": sizes.intervals,
        "SPECIES": sizes.species,
        "L_EDGE": sizes.l_edge,
        "L_MAX_FEATURES": sizes.l_max,
        "CHANNELS": sizes.channels,
        "GRID": sizes.grid,
    }
    about = [f"#define TESSERAL_{name} {value}" for name, value in values.items()]
    about += [f'#include "{header}"', "namespace tesseral {"]
    about += [f"TESSERAL_CONVOLUTION({degree})" for degree in sorted(set(sizes.layers))]
    return "\n".join([*about, *lines, "}", ""])


def digest(text: str, *more: str) -> str:
    """Hash of a translation unit with the headers that it includes."""
    found = hashlib.sha256(text.encode())
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.h")):
            found.update(path.read_bytes())
    for part in more:
        found.update(part.encode())
    return found.hexdigest()[:32]
