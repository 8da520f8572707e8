"""Random numbers that follow ``pytest --seed``."""

import torch

offset = 0  # set by conftest.py


def reseed(number: int) -> None:
    """Random numbers from ``number`` on; others with each ``--seed``, which is 0 by default."""
    torch.manual_seed(number + 1000 * offset)
