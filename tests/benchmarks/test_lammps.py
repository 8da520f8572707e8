"""The benchmark of LAMMPS: what it reads from its output."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lammps import parse, rows, script, step_time

OUTPUT = """\
   Step          Temp          PotEng
         0   1200           -10.5
Loop time of 9.5 on 1 procs for 10 steps with 8 atoms
   Step          Temp          PotEng
        10   600.5         -10.25
        20   601           -10.26
Loop time of 0.25 on 1 procs for 10 steps with 8 atoms
"""


def test_the_last_run_counts() -> None:
    assert rows(OUTPUT) == ["10 600.5 -10.25", "20 601 -10.26"]
    assert step_time(OUTPUT, 10) == 0.025


def test_the_start_is_not_timed() -> None:
    text = script(Path("si.data"), "pair_style tesseral", 300, 100, 10)
    assert text.endswith("run 10\nrun 100\n")


def test_sizes_are_numbers() -> None:
    assert parse(["model.safetensors", "--sizes", "64,512"]).sizes == [64, 512]
    with pytest.raises(ValueError, match="many"):
        parse(["model.safetensors", "--sizes", "many"])
