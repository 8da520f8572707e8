"""Training programs as processes with timed output and a time limit."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.workers import ROOT, environment

START_SECONDS = 900.0  # s allowed before the training begins: imports, data, compilation
GRACE_SECONDS = 60.0  # s between asking a process to end and killing it


class Ended(NamedTuple):
    """Exit status and times of a process."""

    status: int  # negative: number of the signal
    wall: float  # s, including start-up
    cpu: float  # s
    peak_mb: float
    stopped: bool  # stopped by us at the limit


class Watch:
    """Timer that ends a process and its children at a limit: asks first, then kills."""

    def __init__(self, group: int, seconds: float) -> None:
        """Watch a group of processes for the given number of seconds."""
        self.group = group
        self.fired = False
        self._timer: threading.Timer | None = None
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """Restart the time; it may be infinite."""
        self.cancel()
        if math.isfinite(seconds):
            self._start(seconds, self._ask)

    def cancel(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def kill(self, number: int) -> None:
        """Send a signal to all processes that still run."""
        try:
            os.killpg(self.group, number)
        except ProcessLookupError:
            pass

    def _start(self, seconds: float, function: Callable[[], None]) -> None:
        self._timer = threading.Timer(seconds, function)
        self._timer.daemon = True
        self._timer.start()

    def _ask(self) -> None:
        self.fired = True
        self._start(GRACE_SECONDS, lambda: self.kill(signal.SIGKILL))
        self.kill(signal.SIGTERM)


class Place:
    """Cores on which processes run, one at a time.

    Args:
        threads: number of threads of each process.
        cores: cores to use; any if empty.
    """

    def __init__(self, threads: int, cores: Sequence[int] = ()) -> None:
        """Empty."""
        self.threads, self.cores = threads, tuple(cores)
        self.closed = False
        self._watch: Watch | None = None

    def enter(self, watch: Watch) -> None:
        """Register the running process."""
        self._watch = watch
        if self.closed:
            watch.kill(signal.SIGKILL)

    def leave(self) -> None:
        """Unregister the process, which has ended."""
        self._watch = None

    def close(self) -> None:
        """End the running process and every later one."""
        self.closed = True
        if self._watch is not None:
            self._watch.kill(signal.SIGKILL)


def stamp(line: str) -> tuple[float, str]:
    """Seconds and text of a line in a log written by ``run_stamped``."""
    seconds, _, text = line.partition("\t")
    return float(seconds), text.rstrip("\n")


def read_stamped(log: Path) -> list[tuple[float, str]]:
    """All lines of such a log."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return [stamp(line) for line in lines]


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """The command restricted to these cores, if the system has taskset."""
    program = shutil.which("taskset")
    if not cores or program is None:
        return list(command)
    return [program, "-c", ",".join(map(str, cores)), *command]


def places(threads: int, parallel: int) -> list[Place]:
    """Places of the processes that run in parallel, each with its own cores.

    Raises:
        ValueError: there are too few cores.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    have = len(cores) or os.cpu_count() or 1
    if threads * parallel > have:
        raise ValueError(
            f"{parallel} trainings on {threads} threads each need {threads * parallel} cores, and "
            f"there are {have}; reduce --parallel or --threads"
        )
    return [Place(threads, cores[i * threads : (i + 1) * threads]) for i in range(parallel)]


def run_stamped(
    command: Sequence[str],
    folder: Path,
    log: Path,
    *,
    place: Place,
    variables: Mapping[str, str],
    begins: Callable[[str], bool],
    ends: Callable[[str], bool],
    limit: float,
    show: Callable[[float, str], None] = lambda seconds, line: None,
) -> Ended:
    """Run a command; every line it prints goes to the log with the seconds since its start.

    Args:
        command: command to run.
        folder: working folder.
        log: file for the output.
        place: cores to run on.
        variables: additional environment variables.
        begins: whether a line marks the start of the training.
        ends: whether a line marks the end of the training, and thus of the limit.
        limit: seconds of training after which it is asked to end, and killed soon after.
        show: called with the seconds of training so far and each line.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        pinned(command, place.cores),
        cwd=folder,
        env=environment(
            place.threads, **{**variables, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _python_path()}
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    watch = Watch(process.pid, START_SECONDS)
    place.enter(watch)
    begun: float | None = None
    try:
        assert process.stdout is not None
        with process.stdout, log.open("w", encoding="utf-8") as file:
            for line in process.stdout:
                now = time.perf_counter() - start
                file.write(f"{now:.3f}\t{line}")
                file.flush()
                if begun is None and begins(line):
                    begun = now
                    watch.set(limit)
                elif ends(line):
                    watch.set(START_SECONDS)
                show(0.0 if begun is None else now - begun, line)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        watch.kill(signal.SIGKILL)
        raise
    finally:
        watch.cancel()
        place.leave()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        status=process.returncode,
        wall=time.perf_counter() - start,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1024,
        stopped=watch.fired,
    )


def _python_path() -> str:
    """PYTHONPATH with the benchmarks appended for all programs."""
    return os.pathsep.join(part for part in (os.environ.get("PYTHONPATH", ""), str(ROOT)) if part)
