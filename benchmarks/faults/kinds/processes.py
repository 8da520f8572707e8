"""Killed commands, full disks, forks and threads."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.kinds import runs
from benchmarks.faults.kinds.common import labelled_frames
from benchmarks.faults.kinds.stores import read
from benchmarks.faults.mutations import pick
from benchmarks.faults.running import Case, Kind, Refused, command
from tesseral import TesseralCalculator, open_store

LATEST = 6.0  # seconds after which a command is killed
SMALLEST, LARGEST = 0, 300_000  # bytes of the largest file that fits on the disk


def prepare(samples: Path) -> Mapping[str, Any]:
    """Inputs, and the results of each command without an accident."""
    runs.write_inputs(samples)
    numbers = {}
    for name, run in runs.RUNS.items():
        with runs.inside(samples / name, samples):
            command(*run.words)
            numbers[name] = run.numbers()
    return numbers


def case(rng: np.random.Generator, samples: Path) -> Case:
    """An accident of a process."""
    name = pick(rng, runs.RUNS)
    for each in runs.INPUTS:
        Path(each).symlink_to(samples / each)
    return pick(rng, (_killed, _full, _full, _forked, _threads))(rng, name, samples)


def _killed(rng: np.random.Generator, name: str, samples: Path) -> Case:
    """The command is killed once or twice; then the same command resumes."""
    run = runs.RUNS[name]
    times = [float(LATEST * rng.random() ** 2) for _ in range(int(rng.integers(1, 3)))]

    def act() -> Any:
        for seconds in times:
            _kill_after(seconds, lambda: _start(run))
        _start(run)
        return run.numbers()

    shown = ", ".join(f"{seconds:.3f} s" for seconds in times)
    return Case(f"{name} killed after {shown}", act, name)


def _start(run: runs.Run) -> None:
    """The command; the training resumes where there is a checkpoint."""
    last = Path("runs/new/last.ckpt")
    if run.resume and last.exists():
        try:
            command(*run.words, *run.resume)
        except Refused as error:
            if "had reached its end" not in str(error):
                raise
    elif run.words[0] == "data" and Path("new.h5").exists():
        return
    else:
        command(*run.words)


def _kill_after(seconds: float, work: Callable[[], None]) -> None:
    """Do the work in another process, which is killed after a time if it is still running."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.waitpid(pid, os.WNOHANG)[0] == 0:
        time.sleep(0.002)
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _full(rng: np.random.Generator, name: str, samples: Path) -> Case:
    """No file can grow beyond a size; then there is space again."""
    run = runs.RUNS[name]
    size = int(SMALLEST + (LARGEST - SMALLEST) * rng.random() ** 3)

    def act() -> Any:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        refused: Refused | None = None
        try:
            _start(run)
        except Refused as error:
            refused = error
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if refused is not None:
            _start(run)
        return run.numbers()

    return Case(f"{name}: no file above {size} bytes", act, name)


def _forked(rng: np.random.Generator, name: str, samples: Path) -> Case:
    """A dataset or a calculator is used before a fork and in both processes after it."""
    what = pick(rng, ("store", "calculator"))

    def act() -> Any:
        store, calculator = open_store("set.h5"), TesseralCalculator("model.safetensors", "cpu")
        use: dict[str, Callable[[], Any]] = {
            "store": lambda: [float(one.energy) for one in store],
            "calculator": lambda: _energies(calculator),
        }
        before = use[what]()
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if use[what]() == before else 3)
            except BaseException:
                os._exit(4)
        status = os.waitpid(pid, 0)[1]
        if status or use[what]() != before:
            raise AssertionError(f"after a fork: status {status}")
        return None

    return Case(f"fork with a {what}", act)


def _threads(rng: np.random.Generator, name: str, samples: Path) -> Case:
    """Several threads use datasets and calculators, each its own or one that they share."""
    what = pick(rng, ("own calculators", "own stores", "shared store"))
    count = int(rng.integers(2, 7))

    def act() -> Any:
        shared = open_store("set.h5")

        def work(_: int) -> Any:
            if what == "own calculators":
                return _energies(TesseralCalculator("model.safetensors", "cpu"))
            if what == "own stores":
                return read(Path("set.h5"), samples)
            return [float(shared[i].energy) for i in (*range(len(shared)), *range(len(shared)))]

        expected = work(0)
        with ThreadPoolExecutor(count) as pool:
            for found in pool.map(work, range(2 * count)):
                if found != expected:
                    raise AssertionError(f"{what}: threads have other numbers")
        return None

    return Case(f"{count} threads with {what}", act)


def _energies(calculator: TesseralCalculator) -> list[float]:
    energies = []
    for atoms in labelled_frames(3):
        atoms.calc = calculator
        energies.append(float(atoms.get_potential_energy()))
    return energies


KIND = Kind("processes", prepare, case, 0.3, seconds=90)
