"""Damaged inputs give clear errors: a short run of ``python -m benchmarks.faults``."""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.faults.running import Case, Kind, prepare, run_cases

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("models", "stores", "texts", "structures", "options")
NUMBER = 120


@pytest.mark.skipif(sys.platform != "linux", reason="limits and forks of Linux")
def test_damaged_inputs_have_no_faults(tmp_path):
    words = ["--kind", *KINDS, "--number", str(NUMBER), "--output", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    lines = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)[1] for line in lines} == set(KINDS) and len(lines) == NUMBER


def clear():
    raise ValueError("a.h5 has no atoms; give another file")


def two_lines():
    raise ValueError("a.h5 has no atoms\n[]")


def internal():
    raise KeyError("atoms")


def crash():
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


def endless():
    while True:
        time.process_time()


ACTS = {
    "error": clear,
    "unclear": two_lines,
    "traceback": internal,
    "crash": crash,
    "hang": endless,
    "same": lambda: {"energy": 1.0 + 1e-12},
    "changed": lambda: {"energy": 1.1},
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits and forks of Linux")
def test_every_outcome_is_recognised(tmp_path):
    names = list(ACTS)

    def case(rng, samples):
        number = int(rng.bit_generator.seed_seq.entropy[1])
        return Case(names[number], ACTS[names[number]], "good")

    kind = Kind("made up", lambda samples: {"good": {"energy": 1.0}}, case, seconds=1)
    prepare(kind, tmp_path)
    results = run_cases([(kind, number) for number in range(len(names))], 0, tmp_path, 2)
    assert {result.what: result.outcome for result in results} == {name: name for name in names}
