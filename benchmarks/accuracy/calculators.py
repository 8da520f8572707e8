"""ASE calculators of trained models; each function runs in the environment of its program."""

from __future__ import annotations

import os
from typing import Any


def tesseral(path: str) -> tuple[Any, int]:
    """Our calculator, and its number of weights."""
    from tesseral.calculators.ase import TesseralCalculator

    calculator = TesseralCalculator(path, device="cpu")
    return calculator, calculator.card.parameters


def mace(path: str) -> tuple[Any, int]:
    """MACE from a model written by mace_run_train."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=path, device="cpu", default_dtype="float32")
    return calculator, count(calculator.models[0])


def nequip(path: str) -> tuple[Any, int]:
    """NequIP or Allegro from a checkpoint, not compiled."""
    from nequip.integrations.ase import NequIPCalculator

    calculator = NequIPCalculator._from_saved_model(path, device="cpu", compile_mode="eager")
    return calculator, count(calculator.model)


def sevennet(path: str) -> tuple[Any, int]:
    """SevenNet from a checkpoint."""
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(path, device="cpu")
    return calculator, count(calculator.model)


def count(model: Any) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())
