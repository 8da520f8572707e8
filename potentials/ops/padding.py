"""Channels padded with zeros to whole vectors, as required by the compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def padded(tensor: Tensor, channels: int) -> Tensor:
    """A contiguous tensor, padded with zeros to the given number of channels."""
    missing = channels - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor.contiguous()


def padded_channels(channels: int, dtype: torch.dtype) -> int:
    """A number of channels rounded up to a multiple of the widest vector."""
    lanes = 64 // dtype.itemsize
    return (channels + lanes - 1) // lanes * lanes


class Columns(NamedTuple):
    """Layout of flat rows in which every run of channels is padded."""

    width: int  # number of columns of a padded row
    kept: Tensor | None  # columns of the original numbers; None if nothing is padded

    def pad(self, tensor: Tensor) -> Tensor:
        """(N, …) as contiguous rows (N, width), with zeros in between."""
        rows = tensor.flatten(1)
        if self.kept is None:
            return rows.contiguous()
        return rows.new_zeros(rows.shape[0], self.width).index_copy_(1, self.kept, rows)

    def cut(self, rows: Tensor) -> Tensor:
        """Padded rows without the padding."""
        return rows if self.kept is None else rows.index_select(1, self.kept)


def columns(degrees: Sequence[tuple[int, list[int]]], dtype: torch.dtype) -> Columns:
    """Layout of padded rows with consecutive degrees.

    Args:
        degrees: for each degree, the number of components and the runs of channels in a component.
        dtype: dtype of the numbers, which determines the width of vectors.
    """
    kept, width = [], 0
    for components, runs in degrees:
        for run in runs * components:
            kept.append(torch.arange(run, device="cpu") + width)
            width += padded_channels(run, dtype)
    where = torch.cat(kept)
    return Columns(width, None if len(where) == width else where)
