"""The benchmark of GPUs, on the CPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import main, peers
from benchmarks.gpu_kernels import occupancy
from tesseral.potentials.ops import compiled


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages that torch-sim imports
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
def test_the_script_runs_without_a_gpu(tmp_path: Path) -> None:
    main(["--dry", "--sizes", "8", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(row["same to the bit"] for row in found["proof"])
    single = [row for row in found["proof"] if row["dtype"] == "float32"]
    assert all(0 < row["forces"] < 1e-4 for row in single)
    trained = [row for row in found["proof"] if row["by weights"] is not None]
    assert {row["model"] for row in trained} == {"small", "small NequIP"}
    assert all(row["by weights"] < 1e-4 for row in trained)
    timed = [row["model"] for row in found["inference"] if row["model_us_atom"] > 0]
    assert timed == ["small", "small NequIP"]
    kinds = [row["kind"] for row in found["training"] if row["step_ms"] > 0]
    assert kinds == 2 * ["kernels", "not recorded", "PyTorch"]
    assert [row["crystals"] for row in found["batches"] if row["joined_us_atom"] > 0] == [2]
    assert (tmp_path / "gpu.png").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no GPU here; use --dry"):
        main(["--output", str(tmp_path)])


def environment(folder: Path, name: str, script: str) -> None:
    """An environment whose Python is a shell script."""
    python = folder / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


def test_peers_run_in_their_environments(tmp_path: Path) -> None:
    environment(tmp_path, "mace", """echo a warning; echo '{"atoms": 8, "ase_us_atom": 2.0}'""")
    rows = peers(tmp_path, "cpu", [8], 0.1)  # there is no SevenNet
    assert rows == [{"atoms": 8, "ase_us_atom": 2.0}] * 2  # with and without cuEquivariance


def test_a_peer_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    environment(tmp_path, "sevenn", "echo no such module >&2; exit 1")
    rows = peers(tmp_path, "cpu", [8], 0.1)
    assert [(row["model"], row["error"]) for row in rows] == [("sevennet-0", "no such module")] * 2


def test_occupancy_is_limited_by_registers_or_shared_memory() -> None:
    assert occupancy(32, 0, 64) == 1
    assert occupancy(128, 0, 64) == pytest.approx(0.25)
    assert occupancy(32, 100 * 1024, 64) == pytest.approx(2 * 64 / 2048)
