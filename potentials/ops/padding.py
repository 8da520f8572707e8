"""Channels padded with zeros to whole vectors, as the compiled kernels want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def padded(tensor: Tensor, channels: int) -> Tensor:
    """Contiguous, with zeros up to that many channels."""
    missing = channels - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor.contiguous()


def padded_channels(channels: int, dtype: torch.dtype) -> int:
    """The next multiple of the widest vector's length."""
    lanes = 64 // dtype.itemsize
    return (channels + lanes - 1) // lanes * lanes


class Columns(NamedTuple):
    """Where the numbers of flat rows stand once every run of channels has been padded."""

    width: int  # of a padded row
    kept: Tensor | None  # columns of the numbers that are there; None where nothing is padded

    def pad(self, tensor: Tensor) -> Tensor:
        """(N, …) as contiguous rows (N, width), with zeros in between."""
        rows = tensor.flatten(1)
        if self.kept is None:
            return rows.contiguous()
        return rows.new_zeros(rows.shape[0], self.width).index_copy_(1, self.kept, rows)

    def cut(self, rows: Tensor) -> Tensor:
        """Padded rows without what was put in between."""
        return rows if self.kept is None else rows.index_select(1, self.kept)


def columns(degrees: Sequence[tuple[int, list[int]]], dtype: torch.dtype) -> Columns:
    """Columns of rows that go degree after degree.

    Args:
        degrees: for each the number of components, and the runs of channels in each component.
        dtype: of the numbers, for the width of vectors.
    """
    kept, width = [], 0
    for components, runs in degrees:
        for run in runs * components:
            kept.append(torch.arange(run, device="cpu") + width)
            width += padded_channels(run, dtype)
    where = torch.cat(kept)
    return Columns(width, None if len(where) == width else where)
