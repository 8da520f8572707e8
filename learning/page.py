"""Page about a run of `learn`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tesseral.learning.config import LearnConfig
from tesseral.learning.label import Round


def write_page(path: Path, rounds: Sequence[Round], config: LearnConfig) -> None:
    """Write the page."""
