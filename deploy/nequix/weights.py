"""Weights of a Nequix file, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

LONGEST = 2**20  # bytes of the line of settings
NATURAL = "eo"  # parity of even and of odd degrees


class Layer(NamedTuple):
    """Weights of one layer; lists of matrices (C_in, C_out) are by degree."""

    radial: list[Tensor]  # of the radial network
    enter: list[Tensor]  # linear_1
    leave: list[Tensor]  # linear_2
    keep: list[Tensor]  # skip; (n_species, C_in, C_out) where elements have their own
    norm: list[Tensor]  # factors of the channels; empty without a norm


class Weights(NamedTuple):
    """Settings and weights of a Nequix network, float64."""

    settings: dict[str, Any]
    elements: list[int]  # atomic numbers, in the order of the embedding
    channels: list[int]  # of the features, by degree
    energies: Tensor  # (n_species,) eV, of the elements
    layers: list[Layer]
    readout: Tensor  # (C_0, 1)


def read_weights(path: Path) -> Weights:
    """Read a file that the package ``nequix`` wrote.

    Raises:
        ValueError: the file is not one of Nequix weights, or its network has no equivalent here.
    """
    try:
        with path.open("rb") as file:
            settings = json.loads(file.readline(LONGEST))
            arrays = list(_arrays(file))
        elements = sorted(int(number) for number in settings["atomic_numbers"])
        channels = _channels(settings)
        return _named(settings, elements, channels, iter(arrays))
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError, KeyError, EOFError) as error:
        raise ValueError(
            f"{path} is not a file of Nequix weights ({type(error).__name__}: {error})"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _arrays(file: BinaryIO) -> Iterator[Tensor]:
    """The arrays up to the end of the file, which may be followed by empty lines."""
    while file.peek(1).strip():  # type: ignore[attr-defined]
        array = np.lib.format.read_array(file, allow_pickle=False)
        yield torch.from_numpy(np.asarray(array, dtype=np.float64))


def _channels(settings: dict[str, Any]) -> list[int]:
    """Channels of each degree, from ``hidden_irreps`` such as 128x0e + 64x1o."""
    text = settings["hidden_irreps"]
    found = []
    for degree, part in enumerate(text.replace(" ", "").split("+")):
        number, _, irrep = part.rpartition("x")
        if irrep != f"{degree}{NATURAL[degree % 2]}":
            raise ValueError(
                f"it has features {text}; tesseral converts networks with one part for each "
                "degree, of natural parity, such as 128x0e + 64x1o + 32x2e"
            )
        found.append(int(number or 1))
    if len(found) != settings["lmax"] + 1:
        raise ValueError(
            f"it has features {text} and harmonics up to degree {settings['lmax']}; tesseral "
            "converts networks in which the highest degrees are equal"
        )
    return found


def couplings(degrees_in: int, degrees: int, degrees_out: int) -> list[tuple[int, int, int]]:
    """Paths (l1, l2, l3) of natural parity in the order of Nequix: by l3, then l1, then l2.

    Args:
        degrees_in: number of degrees of the features.
        degrees: number of degrees of the harmonics.
        degrees_out: number of degrees of the result.
    """
    return [
        (l1, l2, l3)
        for l3 in range(degrees_out)
        for l1 in range(degrees_in)
        for l2 in range(degrees)
        if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
    ]


def _named(
    settings: dict[str, Any], elements: list[int], channels: list[int], arrays: Iterator[Tensor]
) -> Weights:
    """Assign the arrays, which come in the order of the network's fields."""
    species = len(elements)

    def take(name: str, *shape: int) -> Tensor:
        array = next(arrays, None)
        if array is None or array.shape != shape:
            found = "is missing" if array is None else f"has shape {tuple(array.shape)}"
            raise ValueError(f"{name} {found}; a network of these settings has {shape}")
        return array

    energies = take("atom_energies", species)
    layers = []
    for number in range(int(settings["n_layers"])):
        entering = channels if number else [species]
        leaving = channels if number + 1 < settings["n_layers"] else channels[:1]
        field = [sum(leaving), *leaving[1:]]
        paths = couplings(len(entering), len(channels), len(leaving))
        hidden = [int(settings["radial_mlp_size"])] * int(settings["radial_mlp_layers"])
        functions = sum(entering[l1] for l1, _, _ in paths)
        sizes = [int(settings["radial_basis_size"]), *hidden, functions]
        name = f"the radial network of layer {number}"
        radial = [take(name, *pair) for pair in zip(sizes, sizes[1:], strict=False)]
        enter = [take(f"linear_1 of layer {number}", size, size) for size in entering]
        leave = [
            take(f"linear_2 of layer {number}", rows, size)
            for degree, size in enumerate(field)
            if (rows := sum(entering[l1] for l1, _, l3 in paths if l3 == degree))
        ]
        own = [species] if settings["index_weights"] else []
        keep = [
            take(f"skip of layer {number}", *own, *pair)
            for pair in zip(entering, field, strict=False)
        ]
        normed = field if settings["layer_norm"] else []
        norm = [take(f"layer_norm of layer {number}", size) for size in normed]
        layers.append(Layer(radial, enter, leave, keep, norm))
    readout = take("readout", channels[0], 1)
    # Some files repeat their settings after the weights, as arrays without a dimension.
    left = [tuple(array.shape) for array in arrays if array.dim()]
    if left:
        raise ValueError(f"it has weights that are not known, of shapes {left}")
    return Weights(settings, elements, channels, energies, layers, readout)
