"""`neb` as users run it: files, interruptions, several pairs, errors."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from tesseral.calculators.simulations.band import neb_one
from tesseral.calculators.simulations.config import NebConfig
from tesseral.calculators.simulations.frames import readable_frames
from tesseral.calculators.simulations.structures import read_pairs
from tesseral.commands.main import main

Stop = Callable[[int], Callable[[int, int, str], None]]


@pytest.fixture(scope="module")
def ends() -> tuple[Atoms, Atoms]:
    """An atom beside a vacancy of copper, before and after it jumps."""
    crystal = bulk("Cu", cubic=True, a=3.6) * (2, 2, 2)
    start, end = crystal.copy(), crystal.copy()
    end.positions[1] += crystal.get_distance(1, 0, mic=True, vector=True)
    del start[0], end[0]
    return start, end


def silent(step: int, steps: int, text: str) -> None:
    """Show nothing."""


def test_the_files_hold_the_path(ends: tuple[Atoms, Atoms], tmp_path: Path) -> None:
    config = NebConfig(start="", end="", images=5, fmax=0.1)
    outcome = neb_one(ends, EMT(), config, tmp_path / "hop", silent)
    numbers = json.loads((tmp_path / "hop.json").read_text())
    path = ase.io.read(tmp_path / "hop.extxyz", ":")
    with (tmp_path / "hop.csv").open() as file:
        table = list(csv.DictReader(file))
    assert outcome.word == "converged" and outcome.values["note"] == ""
    assert 0.7 < numbers["forward_barrier_eV"] < 0.85
    assert len(path) == len(table) == len(numbers["images"]) == 5
    energies = [image.get_potential_energy() for image in path]
    above = [float(row["energy_eV"]) for row in table]
    np.testing.assert_allclose(above, np.array(energies) - energies[0], atol=1e-6)
    assert (tmp_path / "hop.png").stat().st_size > 5000


def test_a_stopped_run_gives_the_same_path(
    ends: tuple[Atoms, Atoms], tmp_path: Path, stop_at: Stop
) -> None:
    config = NebConfig(start="", end="", images=5, fmax=0.1)
    whole = neb_one(ends, EMT(), config, tmp_path / "whole", silent)
    steps = []

    def stop(step: int, limit: int, text: str) -> None:
        steps.append(text)
        if step == 6 and text.startswith("barrier"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        neb_one(ends, EMT(), config, tmp_path / "cut", stop)
    frames = len(list(readable_frames(tmp_path / "cut.traj")))
    assert frames == 7 * 3
    with (tmp_path / "cut.traj").open("r+b") as file:  # as after a power cut
        file.truncate((tmp_path / "cut.traj").stat().st_size - 100)
    again = neb_one(ends, EMT(), config, tmp_path / "cut", silent)
    assert again.steps == whole.steps
    for name, value in whole.values.items():
        assert again.values[name] == (value if name == "note" else pytest.approx(value, abs=1e-6))
    one, other = (ase.io.read(tmp_path / f"{name}.extxyz", ":") for name in ("whole", "cut"))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-6)


def test_too_few_steps_are_told(ends: tuple[Atoms, Atoms], tmp_path: Path) -> None:
    config = NebConfig(start="", end="", images=5, fmax=0.001, steps=2)
    outcome = neb_one(ends, EMT(), config, tmp_path / "hop", silent)
    assert outcome.word == "not converged" and "for the start" in outcome.reason


def test_files_of_different_lengths_are_refused(ends: tuple[Atoms, Atoms], tmp_path: Path) -> None:
    ase.io.write(tmp_path / "start.xyz", ends[0], format="extxyz")
    ase.io.write(tmp_path / "end.xyz", [ends[1]] * 3, format="extxyz")
    with pytest.raises(ValueError, match="holds 1 structures and .* 3; .*end.xyz@-1"):
        read_pairs(str(tmp_path / "start.xyz"), str(tmp_path / "end.xyz"))


def test_the_command_computes_pairs_and_resumes(
    stable_model: Path,
    crystal: Atoms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # The two places of a silicon atom that is pushed to either side of its site by a constraint
    # on none: both relax to the crystal. The ends are taken as they are.
    first, second = crystal.copy(), crystal.copy()
    first.positions[0] += [0.25, 0, 0]
    second.positions[0] -= [0.25, 0, 0]
    other = second.copy()
    other.numbers[[0, 1]] = other.numbers[[1, 0]]
    ase.io.write("start.extxyz", [first, first])
    ase.io.write("end.extxyz", [second, other])
    words = ["neb", "start.extxyz", "end.extxyz", "--model", str(stable_model), "--keep-ends"]
    words += ["--images", "3", "--fmax", "0.5", "--dtype", "float64"]
    assert main(words) == 1
    text = capsys.readouterr().out
    assert "1 of 2 structures converged" in text
    assert "note: start-0: the highest structure is an end" in text
    assert "atom 0 (from 0) is Si in the start and C in the end" in text
    assert {path.name for path in Path("start-neb/structures").iterdir()} >= {
        *("start-0.extxyz", "start-0.csv", "start-0.json", "start-0.png", "start-0.traj")
    }
    stamp = Path("start-neb/structures/start-0.json").stat().st_mtime_ns
    assert main(words) == 1
    assert Path("start-neb/structures/start-0.json").stat().st_mtime_ns == stamp
