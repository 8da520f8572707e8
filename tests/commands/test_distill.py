"""The table of ``train-potential distill``."""

from __future__ import annotations

import io
import math
from pathlib import Path

from rich.console import Console

from tesseral.commands.distill import show
from tesseral.learning.distill import Distilled


def test_a_property_that_cannot_be_computed_is_marked() -> None:
    row = {"structure": "MgO", "unit": "GPa", "teacher": 222.0}
    result = {
        "errors": {"energy_per_atom": {"mae": 0.5}, "forces": {"mae": 14.4}},
        "properties": [
            {**row, "quantity": "C11", "model": 231.0, "difference": 4.05},
            {**row, "quantity": "C44", "model": math.nan, "difference": math.nan},
        ],
        "microseconds": {"teacher": 160.0, "model": 16.0},
    }
    console = Console(file=io.StringIO(), width=100)
    show(Distilled(Path("m"), Path("m.pt"), Path("t.h5"), result), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    cells = {line.split("  ")[0]: line.split() for line in lines}
    assert cells["MgO C11, GPa"][-3:] == ["222", "231", "+4.05%"]
    assert cells["MgO C44, GPa"][-4:] == ["222", "–", "not", "stable"]
    assert cells["test: forces MAE, meV/Å"][-1] == "14.4"
    assert "10.0 × faster" in console.file.getvalue()
