"""The benchmark of our own speed, from the work that is timed to its tables."""

import json

import numpy as np
import pytest

from benchmarks import speed
from benchmarks.flops import inference_flops
from benchmarks.ours import Inference
from benchmarks.ours_training import Training
from benchmarks.serve import time_calls
from benchmarks.sheets import Sheet, cell
from benchmarks.silicon import FARTHEST, noise, supercell
from tesseral.potentials.architectures.facet import FacetConfig

SMALL = {"channels": 4, "grid_channels": 4, "l_max": 1}


def test_supercell_sizes():
    assert len(supercell(216)) == 216
    with pytest.raises(ValueError, match="such as 64 or 216"):
        supercell(100)


def test_noise_never_needs_a_new_list():
    moved = noise(100_000, np.random.default_rng(0))
    assert np.linalg.norm(moved, axis=1).max() <= FARTHEST + 1e-12
    assert abs(moved.std() - 0.05) < 1e-3


def test_steps_share_a_list_unless_told_otherwise():
    subject = Inference(SMALL, model=None, ops="reference")
    builds = subject.calculator.neighbors
    task = subject.step(64)
    before = builds.builds
    for _ in range(3):
        time_calls(task, 0.0)
    assert builds.builds == before
    task = subject.rebuilt(64)
    for _ in range(3):
        time_calls(task, 0.0)
    assert builds.builds == before + 3
    assert time_calls(subject.dynamics(64, 2, 300.0), 0.0)["result"]["steps"] == 2


def test_a_training_step_changes_the_weights():
    subject = Training(SMALL, "reference", structures=2, n_atoms=8)
    weights = [p.detach().clone() for p in subject.module.potential.parameters()]
    step = subject.step()
    for _ in range(2):  # the optimiser's first step only measures
        time_calls(step, 0.0)
    after = subject.module.potential.parameters()
    assert any(bool((a != b).any()) for a, b in zip(weights, after, strict=True))
    assert subject.module.global_step == 2


@pytest.mark.slow
def test_from_the_command_line(tmp_path, capsys):
    words = ["--sizes", "8,64", "--threads", "1", "--ops", "reference", "--channels", "4"]
    words += ["--rounds", "1", "--seconds", "0", "--output", str(tmp_path)]
    speed.main([*words, "--markdown", str(tmp_path / "speed.md")])
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["atoms"] for row in rows] == [8, 64]
    assert all(row["step"]["wall_min"] > 0 and row["peak_mb"] > 0 for row in rows)
    assert (tmp_path / "speed.png").stat().st_size > 10_000
    assert "| reference channels 4, 1 thread | 64 |" in (tmp_path / "speed.md").read_text()


def test_wrong_sizes_are_refused(capsys):
    with pytest.raises(SystemExit):
        speed.parse(["--sizes", "65"])
    assert "8 n³" in capsys.readouterr().err


def test_sheet_as_markdown():
    sheet = Sheet("Title", ["name", "value"], "legend", [["a", "1"]])
    assert sheet.markdown().splitlines()[2:5] == ["| name | value |", "| :-- | --: |", "| a | 1 |"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (1.0, "1.00"), (56.78, "56.8"), (1234.5, "1,234"), (None, "–")],
)
def test_cells(value, text):
    assert cell(value) == text


def test_operations_grow_as_they_should():
    small, large = (inference_flops(FacetConfig(channels=c), 28) for c in (16, 32))
    assert large["convolutions"] == pytest.approx(2 * small["convolutions"])
    assert small["total"] == pytest.approx(sum(v for k, v in small.items() if k != "total"))
    crowded = inference_flops(FacetConfig(channels=16), 56)
    assert crowded["convolutions"] == pytest.approx(2 * small["convolutions"])
    assert crowded["linear maps"] == small["linear maps"]
