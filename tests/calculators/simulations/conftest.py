"""Structures that the small stable model holds together, and how runs are stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk

from tesseral.calculators.ase import TesseralCalculator


@pytest.fixture
def crystal() -> Atoms:
    """Rattled SiC in a strained cell, 8 atoms."""
    atoms = bulk("SiC", "zincblende", a=5.42, cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.set_cell(atoms.cell.array * [[1.02], [1.0], [0.99]], scale_atoms=True)
    return atoms


@pytest.fixture(scope="session")
def calculator(stable_model: Path) -> TesseralCalculator:
    """Of the stable model in float64, so that rounding stays far below every tolerance."""
    return TesseralCalculator(stable_model, dtype="float64")


@pytest.fixture
def stop_at() -> Callable[[int], Callable[[int, int, str], None]]:
    """Makes a `show` that stops the run at a step, as Ctrl-C does."""

    def make(last: int) -> Callable[[int, int, str], None]:
        def show(step: int, steps: int, text: str) -> None:
            if step == last:
                raise KeyboardInterrupt

        return show

    return make
