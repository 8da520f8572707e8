"""Modules with a compiled form in addition to the one in plain PyTorch."""

from __future__ import annotations

from torch import nn


class Fusable(nn.Module):
    """A module whose forward calls a compiled operator if ``fused`` is set.

    ``ops.select`` sets it for all modules of a potential at once.
    """

    __constants__ = ["fused"]  # so that TorchScript removes the unused branch

    def __init__(self) -> None:
        """Start with plain PyTorch."""
        super().__init__()
        self.fused = False
