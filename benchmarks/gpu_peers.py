"""ASE steps of MACE and SevenNet-0 on a GPU; runs in the environment of the peer.

    PYTHON -m benchmarks.gpu_peers NAME [--cueq] [--device cuda] [--sizes 8,64,…] [--minutes 1]

`python -m benchmarks.gpu --peers FOLDER` runs it. NAME is mace (128x0e, random weights) or
sevennet-0; with --cueq, by the kernels of cuEquivariance, which must be installed. A step is one of
benchmarks.gpu: energy, forces and stress at new positions, with a new neighbour list, in float32.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from benchmarks.silicon import SiliconSteps


def calculator(name: str, device: str, cueq: bool) -> Any:
    """The calculator of a peer."""
    if name == "mace":
        from benchmarks.peers.factories import random_mace

        return random_mace("128x0e", device=device, cueq=cueq)[0]
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device=device, enable_cueq=cueq)


def main() -> None:
    """Print one line of JSON for each number of atoms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("mace", "sevennet-0"))
    parser.add_argument("--cueq", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--minutes", type=float, default=1.0)
    options = parser.parse_args()
    until = time.perf_counter() + 60 * options.minutes
    steps = SiliconSteps(calculator(options.name, options.device, options.cueq))
    for n in options.sizes:
        row: dict[str, Any] = {"model": options.name + (", cuEquivariance" if options.cueq else "")}
        row["atoms"], times = n, []
        try:
            steps.set_up(n)
            while len(times) < 6 or (len(times) < 12 and time.perf_counter() < until):
                steps.move()
                start = time.perf_counter()
                steps.compute()
                times.append(time.perf_counter() - start)
            row["ase_us_atom"] = 1e6 * float(np.median(times[3:])) / n
        except RuntimeError as error:  # out of memory
            row["error"] = str(error)[:200]
        print(json.dumps(row), flush=True)
        if "error" in row or time.perf_counter() > until:
            break


if __name__ == "__main__":
    main()
