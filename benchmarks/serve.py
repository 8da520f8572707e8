"""A process that times calls on request; runs in any environment.

    python -m benchmarks.serve SPECIFICATION        (started by benchmarks/workers.py)

The specification is JSON: ``factory`` (module:function), its ``arguments``, the number of
``threads``, and whether to import ``torch`` first. The factory returns the object whose methods
are timed. Each method returns two functions: one that prepares a call, not timed, and one that is
timed and may return a dict, in which ``steps`` is the number of steps. Requests and replies are
lines of JSON on stdin and stdout; output of the code under test goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Task = tuple[Callable[[], object], Callable[[], Any]]  # prepare, run

STATUS = Path("/proc/self/status")


def memory_mb(field: str) -> float:
    """Resident memory of this process: ``VmRSS`` now, or ``VmHWM`` at its peak."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def forget_peak() -> None:
    """Reset the peak to the memory in use, if the system supports this."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def be_first_to_be_killed() -> None:
    """If memory runs out, let the kernel end this process rather than others of the user."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def time_calls(task: Task, seconds: float) -> dict[str, Any]:
    """Repeat calls until the time is over, at least once.

    Returns:
        Lists of the wall and CPU seconds per step, the peak memory, and the result of the last
        call.
    """
    prepare, run = task
    wall: list[float] = []
    cpu: list[float] = []
    forget_peak()
    end = time.perf_counter() + seconds
    while not wall or time.perf_counter() < end:
        prepare()
        cpu_start, start = time.process_time(), time.perf_counter()
        result = run() or {}
        elapsed, used = time.perf_counter() - start, time.process_time() - cpu_start
        steps = result.get("steps", 1)
        wall.append(elapsed / steps)
        cpu.append(used / steps)
    return {"wall": wall, "cpu": cpu, "peak_mb": memory_mb("VmHWM"), "result": result}


def build(specification: dict[str, Any]) -> tuple[Any, float]:
    """The object under test, and the memory before its creation."""
    if specification["torch"]:
        import torch

        torch.set_num_threads(specification["threads"])
    before = memory_mb("VmRSS")
    module, _, function = specification["factory"].partition(":")
    subject = getattr(importlib.import_module(module), function)(**specification["arguments"])
    if specification["torch"]:
        torch.set_num_threads(specification["threads"])
    return subject, before


def main() -> None:
    """Serve until stdin is closed."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=replies, flush=True)

    be_first_to_be_killed()
    try:
        subject, before = build(json.loads(sys.argv[1]))
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {error}"})
        raise
    reply({"info": getattr(subject, "info", {}), "before_mb": before})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            task = getattr(subject, request["method"])(**request["arguments"])
            reply(time_calls(task, request["seconds"]))
        except Exception as error:  # reported to the client; the next request may work
            reply({"error": f"{type(error).__name__}: {str(error)[:300]}"})


if __name__ == "__main__":
    main()
