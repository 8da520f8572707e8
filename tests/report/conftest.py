"""A random model, data that it made itself, and the smallest report of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.store.read import write_store
from tesseral.data.structures import Structure, make_structure
from tesseral.data.units import stress_tensor
from tesseral.report.config import Effort, ReportConfig
from tesseral.report.context import Context

TINY = Effort(
    crystals=1,
    md_atoms=8,
    md_time=0.01,
    warm_up=0.004,
    hot_time=0.01,
    vacancy_atoms=4,
    phonon_length=4.0,
    phonon_atoms=0,
    path_steps=5,
    structures=1,
    sizes=(2, 8),
    dimer_step=0.1,
)


def shaken(number: int, seed: int = 0) -> list[Atoms]:
    """Cells of silicon carbide, strained and shaken."""
    rng = np.random.default_rng(seed)
    cells = []
    for _ in range(number):
        atoms = bulk("SiC", "zincblende", a=4.4, cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), True)
        atoms.rattle(0.1, rng=rng)
        cells.append(atoms)
    return cells


def labelled(model: Path, cells: list[Atoms], **changes: Any) -> list[Structure]:
    """Structures with the model's own results for labels, so that its errors are nil."""
    calculator = TesseralCalculator(model, device="cpu")
    structures = []
    for number, atoms in enumerate(cells):
        atoms.calc = calculator
        stress = stress_tensor(atoms.get_stress()) if atoms.pbc.all() else None
        made = make_structure(
            atoms.numbers,
            atoms.positions,
            cell=atoms.cell.array if atoms.pbc.all() else None,
            energy=atoms.get_potential_energy(),
            forces=atoms.get_forces(),
            stress=stress,
        )
        structures.append(made._replace(config_type=f"kind {number % 2}", **changes))
    return structures


@pytest.fixture(scope="session")
def own_data(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test set on which the random model makes no errors."""
    path = tmp_path_factory.mktemp("own") / "own.h5"
    write_store(path, labelled(small_model, shaken(4)))
    return path


@pytest.fixture
def make_context(small_model: Path, own_data: Path, tmp_path: Path) -> Callable[..., Context]:
    """Contexts of the random model; arguments are those of the configuration."""

    def make(**changes: Any) -> Context:
        values = {
            "model": str(small_model),
            "data": str(own_data),
            "output": str(tmp_path / "report"),
            "device": "cpu",
            **changes,
        }
        return Context(ReportConfig(**values), TINY)

    return make
