"""Time and memory of farthest-point selection from a million structures.

The descriptors of the structures of a dataset are computed, repeated with noise as large as a tenth
of their spread until there are a million, and selected from as a stream; then from a part of the
stream with all points in memory, to compare the spread of what both choose::

    python -m benchmarks.selection model.safetensors set.h5 --number 1000000 --count 1000

With ``--learn`` the stream goes through the selection of a round of ``train-potential learn``, as
if it came from six runs of the exploration.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.selection import KEPT, TIMES, Described, described
from tesseral.data.selection import FarthestPoints, nearest_points
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model
from tesseral.learning import select

BLOCK, NOISE = 4096, 0.1
RUNS = 6  # of the exploration

Points = NDArray[np.float32]


def stream(points: Points, number: int) -> Iterator[Points]:
    """Rows of ``points`` with noise, in blocks; the same in every call."""
    rng = np.random.default_rng(0)
    spread = NOISE * points.std(axis=0)
    for start in range(0, number, BLOCK):
        rows = rng.integers(len(points), size=min(BLOCK, number - start))
        noise = rng.standard_normal((len(rows), points.shape[1]), dtype=np.float32)
        yield points[rows] + spread * noise


def radius(points: Points, chosen: Points, number: int) -> float:
    """Largest distance of a point of the stream to the nearest chosen one."""
    return max(
        float(np.sqrt(nearest_points(block, chosen)[0].max())) for block in stream(points, number)
    )


def chosen_points(points: Points, number: int, numbers: NDArray[np.int64]) -> Points:
    """Points of the stream by number."""
    found = np.empty((len(numbers), points.shape[1]), np.float32)
    start = 0
    for block in stream(points, number):
        inside = (numbers >= start) & (numbers < start + len(block))
        found[inside] = block[numbers[inside] - start]
        start += len(block)
    return found


class Explored:
    """Structures of a round, by number."""

    def __init__(self, number: int) -> None:
        """Structures 0 to number - 1."""
        self.number = number

    def __len__(self) -> int:
        """Number of structures."""
        return self.number

    def __getitem__(self, row: int) -> int:
        """The number itself."""
        return row

    def texts(self, column: str) -> list[str]:
        """The run of each structure."""
        size = -(-self.number // RUNS)
        return [f"start-md-{100 * (row // size + 1)}K" for row in range(self.number)]


def of_a_round(points: Points, number: int, count: int, model: str) -> None:
    """Select from the stream as a round of learn does."""

    def numbered(*_: object) -> Iterator[Described]:
        start = 0
        for block in stream(points, number):
            rows = np.arange(start, start + len(block))
            yield Described(rows, block, np.ones(len(block), np.float32))
            start += len(block)

    calculator: Any = TesseralCalculator(model, device="cpu")
    explored: Any = Explored(number)
    before = memory()
    begin = time.perf_counter()
    with patch.object(select, "described", numbered):
        rows, _ = select.select(calculator, explored, [], count)
    spent = time.perf_counter() - begin
    shares = np.bincount(np.array(rows, np.int64) * RUNS // number, minlength=RUNS)
    print(
        f"learn: {len(rows)} of {number} in {spent:.0f} s, from the runs {shares.tolist()}; peak "
        f"memory {memory():.2f} GB, {before:.2f} GB before"
    )


def memory() -> float:
    """Peak memory of this process, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--number", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--learn", action="store_true", help="by the selection of learn")
    parser.add_argument("--part", type=int, default=50_000, help="points of the comparison")
    options = parser.parse_args()
    for name, text in machine().items():
        print(f"{name}: {text}")
    potential, card = load_model(options.model, device="cpu")
    store = open_store(options.data)
    begin = time.perf_counter()
    points = np.concatenate([part.points for part in described(potential, store, card.elements)])
    spent = time.perf_counter() - begin
    atoms = int(store.n_atoms.sum())
    print(f"descriptors: {points.shape}, {1e6 * spent / atoms:.0f} µs/atom, {atoms} atoms")
    print(f"peak memory with the descriptors: {memory():.2f} GB")
    if options.learn:
        of_a_round(points, options.number, options.count, options.model)
        return

    kept = max(KEPT, TIMES * options.count)
    begin = time.perf_counter()
    making = time.perf_counter()
    for _ in stream(points, options.number):
        pass
    making = time.perf_counter() - making
    begin = time.perf_counter()
    summary = FarthestPoints(kept)
    for block in stream(points, options.number):
        summary.add(block)
    found = summary.choose(options.count)
    spent = time.perf_counter() - begin - making
    print(
        f"{options.count} of {options.number}: {spent:.0f} s, {making:.0f} s to make the points; "
        f"peak memory {memory():.2f} GB"
    )
    taken = chosen_points(points, options.number, found.numbers)
    print(
        f"radius {radius(points, taken, options.number):.4g} (bound {found.rest + summary.lost:.4g}"
        f"), smallest distance {found.distances[-1]:.4g}"
    )
    rng = np.random.default_rng(1)
    some = chosen_points(points, options.number, rng.integers(options.number, size=options.count))
    print(f"radius of as many random ones: {radius(points, some, options.number):.4g}")

    radii = []
    for size in (kept, options.part):
        summary = FarthestPoints(size)
        for block in stream(points, options.part):
            summary.add(block)
        numbers = summary.choose(options.count).numbers
        radii.append(radius(points, chosen_points(points, options.part, numbers), options.part))
    print(
        f"of {options.part} points: radius {radii[0]:.4g} with {kept} in memory, {radii[1]:.4g} "
        "with all"
    )


if __name__ == "__main__":
    main()
