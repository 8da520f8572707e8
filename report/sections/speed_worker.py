"""A separate process that measures time and memory of a model alone.

    python -m tesseral.report.sections.speed_worker SETTINGS      (started by speed.py)

The settings are JSON; one line of JSON is written for each size.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
SECONDS = 0.6  # measuring time of each size
CALLS = 3  # minimum number


def memory_mb(field: str) -> float:
    """Resident memory of this process: ``VmRSS`` now, or ``VmHWM`` at its peak."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    """Measure the sizes in ascending order, since a peak of memory never falls."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    import ase.io
    import numpy as np
    import torch
    from ase import Atoms

    from tesseral.calculators.ase import TesseralCalculator
    from tesseral.calculators.properties.atoms import repeated
    from tesseral.process import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(settings["threads"])
    before = memory_mb("VmRSS")
    calculator = TesseralCalculator(
        settings["model"], device=settings["device"], dtype=settings["dtype"]
    )
    cell = ase.io.read(settings["sample"])
    assert isinstance(cell, Atoms)
    rng = np.random.default_rng(0)
    for size in sorted(settings["sizes"]):
        atoms = repeated(cell, size)
        atoms.calc = calculator
        calculator.neighbors.forget()
        atoms.get_forces()
        times: list[float] = []
        busy: list[float] = []
        end = time.perf_counter() + SECONDS
        while len(times) < CALLS or time.perf_counter() < end:
            atoms.positions += 1e-3 * rng.normal(size=(len(atoms), 3))
            start, used = time.perf_counter(), time.process_time()
            atoms.get_forces()
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - used)
        seconds = min(times)  # other programs can only make a call slower
        row = {
            "atoms": len(atoms),
            "seconds": seconds,
            "us_per_atom": 1e6 * seconds / len(atoms),
            "cpu_us_per_atom": 1e6 * min(busy) / len(atoms),
            "median_us_per_atom": 1e6 * statistics.median(times) / len(atoms),
            "calls": len(times),
            "peak_mb": memory_mb("VmHWM") - before,
            "stress": "stress" in calculator.results,
        }
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
