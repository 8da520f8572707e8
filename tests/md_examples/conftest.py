"""A model whose random weights hold a crystal together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tesseral.deploy.modelfile import build_potential, read_card, save_model


@pytest.fixture(scope="module")
def gentle_model(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with forces a hundred times smaller, so that its random crystal holds."""
    card = read_card(small_model)
    card = replace(card, energy_scale=0.01 * card.energy_scale)
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("gentle") / "gentle.safetensors"
    save_model(path, build_potential(card), card)
    return path
