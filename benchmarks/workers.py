"""Worker processes with alternating timings, A B A B, so that drifts affect all of them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

# For glibc's malloc: keep freed memory. Otherwise large arrays are returned and faulted in again in
# each step, which can take half of the time on a virtual machine.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "100000000",
}


def environment(threads: int, **more: str) -> dict[str, str]:
    """Environment variables of a process for a number of threads."""
    limits = dict.fromkeys(THREADS, str(threads))
    return {**os.environ, "GOMP_SPINCOUNT": "1000", **limits, **more}


class Job(NamedTuple):
    """A method of the object under test, and its arguments."""

    label: str
    method: str
    arguments: dict[str, Any] = {}
    seconds: float | None = None  # duration of a burst, if different from other jobs


@dataclass(kw_only=True)
class Specification:
    """Task of a worker.

    Args:
        name: name in tables.
        factory: module:function that returns the object under test.
        arguments: arguments of the factory.
        python: interpreter.
        threads: number of threads.
        torch: import torch first; memory is counted relative to that after the import.
        variables: additional environment variables.
        facts: additional entries of the result.
    """

    name: str
    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    threads: int = 1
    torch: bool = True
    variables: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Worker:
    """One process of benchmarks/serve.py.

    Attributes:
        info: description from the object under test.
        before_mb: memory after the import of torch.
        error: reason why it cannot answer any more; empty while it can.
    """

    def __init__(self, specification: Specification, logs: Path) -> None:
        """Start the process; ``logs`` is the folder for its output."""
        self.specification = specification
        self.name = specification.name
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{self.name.replace(' ', '_').replace('/', '_')}.log"
        fields = ("factory", "arguments", "threads", "torch")
        words = json.dumps({name: getattr(specification, name) for name in fields})
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [specification.python, "-m", "benchmarks.serve", words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=environment(specification.threads, **specification.variables),
            )
        self.error = ""
        start = self._receive()
        self.info: dict[str, Any] = start.get("info", {})
        self.before_mb: float = start.get("before_mb", 0.0)
        self.error = self.error or start.get("error", "")

    def call(self, job: Job, seconds: float) -> dict[str, Any]:
        """Time a burst of calls; returns the result of serve.time_calls, or ``error``."""
        if self.error:
            return {"error": self.error}
        request = {"method": job.method, "arguments": job.arguments, "seconds": seconds}
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has died; detected when the answer is read
        return self._receive()

    def close(self) -> None:
        """End it."""
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()
        except OSError:
            pass
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            message: dict[str, Any] = json.loads(line)
            return message
        self.error = f"the process ended with status {self.process.wait()}; see {self.log}"
        return {"error": self.error}


@contextmanager
def workers(specifications: Iterable[Specification], logs: Path) -> Iterator[list[Worker]]:
    """Started workers, which are always ended.

    Raises:
        SystemExit: no worker could be started.
    """
    started: list[Worker] = []
    try:
        for specification in specifications:
            started.append(Worker(specification, logs))
        if all(worker.error for worker in started):
            raise SystemExit("\n".join(f"{worker.name}: {worker.error}" for worker in started))
        yield started
    finally:
        for worker in started:
            worker.close()


@dataclass
class Timing:
    """Times of many calls of one worker."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def add(self, answer: dict[str, Any]) -> None:
        """Add the calls of a burst."""
        if "error" in answer:
            self.error = answer["error"]
            return
        self.wall += answer["wall"]
        self.cpu += answer["cpu"]
        self.peak_mb = max(self.peak_mb, answer["peak_mb"])
        self.result = answer["result"]

    def summary(self) -> dict[str, Any]:
        """Minimum and median in seconds, for the result file."""
        if self.error or not self.wall:
            return {"error": self.error or "not measured"}
        return {
            "wall_min": min(self.wall),
            "wall_median": statistics.median(self.wall),
            "cpu_min": min(self.cpu),
            "cpu_median": statistics.median(self.cpu),
            "calls": len(self.wall),
            "peak_mb": self.peak_mb,
        }


def interleave(
    started: Sequence[Worker],
    jobs: Sequence[Job],
    *,
    rounds: int,
    warmup: int,
    seconds: float,
    advance: Callable[[str], None] = lambda name: None,
) -> dict[tuple[str, str], Timing]:
    """Time all jobs of all workers in turn.

    Args:
        started: the workers.
        jobs: jobs of every worker in every round.
        rounds: number of rounds; in each, every worker makes as many calls as the time allows.
        warmup: number of warm-up rounds of one call each, which do not count.
        seconds: duration of a burst of calls.
        advance: called with the name of the worker before each burst.

    Returns:
        Timings by name of the worker and label of the job.
    """
    timings = {(worker.name, job.label): Timing() for worker in started for job in jobs}
    for number in range(-warmup, rounds):
        for worker in started:
            for job in jobs:
                timing = timings[worker.name, job.label]
                advance(worker.name)
                if timing.error:
                    continue
                burst = seconds if job.seconds is None else job.seconds
                answer = worker.call(job, 0.0 if number < 0 else burst)
                if number >= 0 or "error" in answer:
                    timing.add(answer)
    return timings
