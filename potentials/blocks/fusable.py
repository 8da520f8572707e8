"""Modules that have a compiled form beside the one in plain PyTorch."""

from __future__ import annotations

from torch import nn


class Fusable(nn.Module):
    """A module whose forward calls a compiled operator where ``fused`` is set.

    ``ops.select`` sets it for all modules of a potential at once.
    """

    __constants__ = ["fused"]  # so that TorchScript drops the branch that is not taken

    def __init__(self) -> None:
        """Use plain PyTorch until told otherwise."""
        super().__init__()
        self.fused = False
