"""The steps of the quickstart that need no training, with the small stable model."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from rich.console import Console

from tesseral.calculators.ase import TesseralCalculator
from tesseral.md_examples import quickstart

PNG = b"\x89PNG\r\n"


@pytest.fixture
def crystal(stable_model: Path) -> Atoms:
    """Rattled SiC with a calculator."""
    atoms = bulk("SiC", "zincblende", a=5.5, cubic=True)
    atoms.rattle(0.03, seed=0)
    atoms.calc = TesseralCalculator(stable_model)
    return atoms


def test_relaxation_writes_its_files(crystal: Atoms, tmp_path: Path) -> None:
    before = crystal.copy()
    atoms = quickstart.relax(crystal, tmp_path, Console(quiet=True))
    assert crystal == before
    assert atoms.get_potential_energy() < crystal.get_potential_energy() - 0.01
    frames = ase.io.read(tmp_path / "relax.traj", index=":")
    assert frames[0].positions == pytest.approx(crystal.positions)
    assert ase.io.read(tmp_path / "relax.extxyz").positions == pytest.approx(atoms.positions)
    assert (tmp_path / "relax.png").read_bytes().startswith(PNG)


def test_dynamics_writes_its_files(crystal: Atoms, tmp_path: Path) -> None:
    drift = quickstart.run_dynamics(crystal, 300.0, 0.05, tmp_path, Console(quiet=True))
    lines = (tmp_path / "nve.csv").read_text().splitlines()
    assert lines[0].startswith("time_ps,potential_eV_atom,kinetic_eV_atom,temperature_K")
    rows = np.array([[float(value) for value in line.split(",")] for line in lines[1:]])
    assert rows[:, 0] == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    assert rows[:, 3].mean() == pytest.approx(drift.temperature, rel=1e-6)
    assert len(ase.io.read(tmp_path / "nve.traj", index=":")) == 6
    assert (tmp_path / "nve.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("deviation", "problem", "status", "message"),
    [
        (0.1, None, 0, ""),
        (5.0, None, 1, ""),
        (0.1, ValueError("train-potential fit failed"), 2, "error: train-potential fit failed"),
        (0.1, quickstart.Unstable("MD ended at step 3"), 1, "stopped: MD ended at step 3"),
        (0.1, KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_exit_status(
    deviation: float,
    problem: BaseException | None,
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_all(*arguments: object) -> list[quickstart.Check]:
        if problem is not None:
            raise problem
        return [quickstart.Check("lattice constant", deviation, 0.3, "")]

    monkeypatch.setattr(quickstart, "run_all", run_all)
    assert quickstart.main(["--output", str(tmp_path / "new")]) == status
    assert capsys.readouterr().err.strip() == message
