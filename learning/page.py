"""Page about a run of `learn`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tesseral.learning.config import LearnConfig

if TYPE_CHECKING:
    from tesseral.learning.rounds import Round


def write_page(path: Path, rounds: Sequence[Round], config: LearnConfig) -> None:
    """Write the page."""
