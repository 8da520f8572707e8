"""Processes forked from one that has computed with several threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="Windows cannot fork")

COMPUTE = """
import os, sys, threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import torch
from ase.build import bulk
from tesseral import TesseralCalculator

calculator = TesseralCalculator(sys.argv[1], ops=sys.argv[2])

def energy(a):
    atoms = bulk("SiC", "zincblende", a=a, cubic=True).repeat(3)
    atoms.calc = calculator
    return atoms.get_potential_energy()

lattices = [4.3, 4.4]
expected = [energy(a) for a in lattices]
assert torch.get_num_threads() == 2
"""
WAYS = {
    "pool": """
with get_context("fork").Pool(2) as pool:
    found = pool.map(energy, lattices)
""",
    "executor": """
with ProcessPoolExecutor(2, get_context("fork")) as pool:
    found = list(pool.map(energy, lattices))
""",
    "fork": """
here, there = os.pipe()
if os.fork() == 0:
    os.write(there, repr([energy(a) for a in lattices]).encode())
    os._exit(0)
found = eval(os.read(here, 1000))
""",
    "a thread of the child": """
def in_thread(a):
    results = []
    thread = threading.Thread(target=lambda: results.append(energy(a)))
    thread.start()
    thread.join()
    return results[0]

with get_context("fork").Pool(2) as pool:
    found = pool.map(in_thread, lattices)
""",
}
COMPARE = """
assert torch.get_num_threads() == 2
assert max(abs(a - b) for a, b in zip(found + [energy(4.3)], expected + expected[:1])) < 1e-3
"""


def run(script: str, *arguments: object) -> None:
    """Run a script on two threads; a hang is a failure, and no process is left behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=120)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("way", WAYS)
def test_forked_children_compute_and_the_parent_keeps_its_threads(
    way: str, small_model: Path
) -> None:
    run(COMPUTE + WAYS[way] + COMPARE, small_model, "auto")


def test_forked_children_compute_without_the_kernels(small_model: Path) -> None:
    run(COMPUTE + WAYS["fork"] + COMPARE, small_model, "reference")


def test_a_training_after_a_calculation_and_in_a_child(
    small_model: Path, emt_files: tuple[Path, Path], tmp_path: Path
) -> None:
    script = """
from tesseral import DataConfig, FitConfig, OptimizationConfig, TrainerConfig, fit, make_config

def train(name):
    fit(FitConfig(
        data=DataConfig(train=sys.argv[3], validation=sys.argv[4], workers=1),
        model=make_config("facet", cutoff=4.0, layers=1),
        optimization=OptimizationConfig(),
        trainer=TrainerConfig(accelerator="cpu", enable_progress_bar=False, max_steps=2),
        output=f"{sys.argv[5]}/{name}.safetensors",
    ))
    return name

train("parent")
with ProcessPoolExecutor(1, get_context("fork")) as pool:
    assert pool.submit(train, "child").result() == "child"
"""
    run(COMPUTE + script, small_model, "auto", *emt_files, tmp_path)
    assert {"parent.safetensors", "child.safetensors"} <= set(os.listdir(tmp_path))


def test_importing_registers_nothing_and_the_first_names_load_no_torch() -> None:
    run(
        "import sys, tesseral, tesseral.files\n"
        "from tesseral.process import survive_forks\n"
        "assert 'torch' not in sys.modules\n"
        "import tesseral.calculators.ase, tesseral.training.fit\n"
        "assert not survive_forks.cache_info().currsize\n"
    )
