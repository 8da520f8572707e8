"""Source of the kernels of a potential: ``csrc`` with its degrees and numbers of channels."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from tesseral.potentials.blocks.convolution import convolution_paths
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

    @property
    def numbers_per_atom(self) -> int:
        """Size of the arrays of an atom that are alive at the same time."""
        every = (self.l_max + 1) ** 2
        kept = [(degree + 1) ** 2 + 1 for degree in self.layers]  # features, gradients by scalars
        kept += [every for _ in self.mixings]
        # On the way back: a field and three gradients, with one of features.
        return (sum(kept) + 3 * every + 2 * max(kept[: len(self.layers)])) * self.channels


class NequIPSizes(NamedTuple):
    """The same of a NequIP potential."""

    dtype: torch.dtype
    cutoff: float
    intervals: int
    species: int
    l_edge: int
    group: int
    embedded: int  # channels of the embedding, multiple of the group
    channels: tuple[int, ...]  # by degree, multiples of the group
    layers: int
    odd: bool  # there are paths of degrees with an odd sum
    silu_gates: bool
    keep_by_element: bool  # elements have self-connections of their own

    @property
    def groups(self) -> int:
        """Number of groups of a block."""
        return 4

    @property
    def numbers_per_atom(self) -> int:
        """Size of the arrays of an atom that are alive at the same time."""
        features = sum((2 * degree + 1) * number for degree, number in enumerate(self.channels))
        field = features + sum(self.channels[1:])
        messages = 0
        for first, l_in, l_out in self.kinds:
            paths = convolution_paths(l_in, self.l_edge, l_out, odd=self.odd)
            sent = [self.embedded] if first else self.channels
            messages = max(messages, sum((2 * l3 + 1) * sent[l1] for l1, _, l3 in paths))
        kept = self.embedded + (self.layers - 1) * features + self.layers * field
        # On the way back: a field, messages, and three gradients by features.
        return kept + field + messages + 3 * features

    @property
    def kinds(self) -> list[tuple[int, int, int]]:
        """Of each layer, whether it is the first one, and its highest degrees in and out."""
        last, degree = self.layers - 1, len(self.channels) - 1
        return [
            (int(n == 0), 0 if n == 0 else degree, 0 if n == last else degree)
            for n in range(self.layers)
        ]


AnySizes = Sizes | NequIPSizes


@lru_cache
def source(sizes: Sizes) -> str:
    """The translation unit of a potential for inference."""
    lines = [f"TESSERAL_LAYER({degree})" for degree in sorted(set(sizes.layers))]
    lines += [f"TESSERAL_MIXING({into}, {out})" for into, out in sorted(set(sizes.mixings))]
    return _facet_unit(sizes, "nodes.h", lines)


@lru_cache
def training_source(sizes: Sizes) -> str:
    """The translation unit of a potential for training."""
    every = {sizes.l_max, *sizes.layers, *(degree for pair in sizes.mixings for degree in pair)}
    products = {(into, into, out) for into, out in sizes.mixings}
    products |= {(out, into, into) for into, out in sizes.mixings}  # their gradients
    lines = [f"TESSERAL_TRAINING({degree})" for degree in sorted(set(sizes.layers))]
    lines += [f"TESSERAL_LINEAR({degree})" for degree in sorted(every)]
    lines += [f"TESSERAL_PRODUCT({a}, {b}, {out})" for a, b, out in sorted(products)]
    return _facet_unit(sizes, "training.h", lines)


def _facet_unit(sizes: Sizes, header: str, lines: list[str]) -> str:
    """A translation unit with the convolutions of Facet and some more kernels."""
    values: dict[str, object] = {
        "L_MAX_FEATURES": sizes.l_max,
        "CHANNELS": sizes.channels,
        "GRID": sizes.grid,
    }
    convolutions = [f"TESSERAL_CONVOLUTION({degree})" for degree in sorted(set(sizes.layers))]
    return _unit(sizes, values, header, [*convolutions, *lines])


@lru_cache
def nequip_source(sizes: NequIPSizes) -> str:
    """The translation unit of a NequIP potential for inference."""
    kinds = sorted(set(sizes.kinds))
    lines = [f"TESSERAL_GATES({l_out})" for l_out in sorted({kind[2] for kind in kinds})]
    if sizes.keep_by_element:
        lines += [f"TESSERAL_OWN_LINEAR({degree})" for degree in range(len(sizes.channels))]
    return _nequip_unit(sizes, "gates.h", ["PATHS"], lines)


@lru_cache
def nequip_training_source(sizes: NequIPSizes) -> str:
    """The translation unit of a NequIP potential for training."""
    return _nequip_unit(sizes, "path_training.h", ["PATHS", "TRAIN"], [])


def _nequip_unit(sizes: NequIPSizes, header: str, of_paths: list[str], lines: list[str]) -> str:
    """A translation unit with some kernels of the paths, and some more."""
    paths = [
        f"TESSERAL_{name}_FROM({first}, {l_out}, {l1})"
        for first, l_in, l_out in sorted(set(sizes.kinds))
        for l1 in range(l_in + 1)
        for name in of_paths
    ]
    values: dict[str, object] = {
        "L_MAX_FEATURES": len(sizes.channels) - 1,
        "EMBEDDED": sizes.embedded,
        "CHANNELS": ", ".join(map(str, sizes.channels)),
        "ODD_SUMS": int(sizes.odd),
        "SILU_GATES": int(sizes.silu_gates),
    }
    return _unit(sizes, values, header, [*paths, *lines])


def _unit(sizes: AnySizes, more: dict[str, object], header: str, lines: list[str]) -> str:
    """A translation unit for some sizes and with some kernels of a header."""
    values: dict[str, object] = {
        "REAL": "float" if sizes.dtype == torch.float32 else "double",
        "GROUP": sizes.group,
        "GROUPS": sizes.groups,
        "CUTOFF": repr(float(sizes.cutoff)),
        "INTERVALS": sizes.intervals,
        "SPECIES": sizes.species,
        "L_EDGE": sizes.l_edge,
    }
    about = [f"#define TESSERAL_{name} {value}" for name, value in (values | more).items()]
    about += [f'#include "{header}"', "namespace tesseral {"]
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
