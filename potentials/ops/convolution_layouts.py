"""The two kinds of spline convolution, as the compiled kernels see them.

``spline_convolution`` sums its paths (``SplineConvolution``), ``path_convolution`` keeps them apart
(``PathConvolution``). What differs is the inputs beyond the common ones, the shape of the result,
and the rows that the kernels read and write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.ops.padding import Columns, columns, degree_of
from tesseral.potentials.ops.tables import is_compiled

Tensors = tuple[Tensor, ...]


class Layout(NamedTuple):
    """Degrees and channels of a convolution, and where its numbers stand for the kernels."""

    l_in: int
    l_out: int
    channels: int  # of paths that are summed
    paths: Tensor | None  # (P, 3) int32, where they are kept apart
    channels_in: Tensor | None  # (l_in + 1,) int32 of the features, likewise, padded
    features: Columns
    coefficients: Columns
    results: Columns


class Kind(NamedTuple):
    """What is special in one of the convolutions."""

    name: str
    tensors: str  # schema of the tensors behind `receivers`
    n_tensors: int  # all of them
    options: str  # schema of what stands behind `cutoff`
    shape: Callable[..., tuple[int, ...]]  # of the result, from the features and the options
    layout: Callable[..., Layout]  # from features, harmonics and the options

    def split(self, inputs: tuple[Any, ...]) -> tuple[Tensors, float, tuple[Any, ...]]:
        """Tensors, cutoff and options of an operator's inputs."""
        return inputs[: self.n_tensors], inputs[self.n_tensors], inputs[self.n_tensors + 1 :]


@lru_cache
def _summed(l_in: int, l_edge: int, l_out: int, channels: int, dtype: torch.dtype) -> Layout:
    n_paths = len(convolution_paths(l_in, l_edge, l_out))
    numbers = [((degree + 1) ** 2, [channels]) for degree in (l_in, l_out)]
    table = columns([(1, [channels] * n_paths)], dtype)
    features, results = (columns([number], dtype) for number in numbers)
    return Layout(l_in, l_out, table.width // n_paths, None, None, features, table, results)


@lru_cache
def _apart(paths: tuple[int, ...], channels: tuple[int, ...], dtype: torch.dtype) -> Layout:
    triples = [paths[i : i + 3] for i in range(0, len(paths), 3)]
    assert all(is_compiled(each) for each in triples)
    l_out = max(l3 for _, _, l3 in triples)
    beside = [[channels[l1] for l1, _, l3 in triples if l3 == l] for l in range(l_out + 1)]  # noqa: E741
    features = [(2 * degree + 1, [number]) for degree, number in enumerate(channels)]
    results = [(2 * degree + 1, numbers) for degree, numbers in enumerate(beside)]
    padded = [columns([(1, [number])], dtype).width for number in channels]
    return Layout(
        len(channels) - 1,
        l_out,
        0,
        torch.tensor(triples, dtype=torch.int32, device="cpu"),
        torch.tensor(padded, dtype=torch.int32, device="cpu"),
        columns(features, dtype),
        columns([(1, [channels[l1] for l1, _, _ in triples])], dtype),
        columns(results, dtype),
    )


def _apart_width(paths: list[int], channels: list[int]) -> int:
    triples = zip(paths[::3], paths[2::3], strict=True)
    return sum((2 * l3 + 1) * channels[l1] for l1, l3 in triples)


SUMMED = Kind(
    "spline_convolution",
    "",
    6,
    "int l_out",
    lambda x, l_out: (x.shape[0], (l_out + 1) ** 2, x.shape[2]),
    lambda x, y, l_out: _summed(
        degree_of(x.shape[1]), degree_of(y.shape[1]), l_out, x.shape[2], x.dtype
    ),
)
APART = Kind(
    "path_convolution",
    ", Tensor pieces, Tensor first",
    8,
    "int[] paths, int[] channels, SymInt n_out",
    lambda x, paths, channels, n_out: (n_out, _apart_width(paths, channels)),
    lambda x, y, paths, channels, n_out: _apart(tuple(paths), tuple(channels), x.dtype),
)
