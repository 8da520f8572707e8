"""Hessian of warm silicon beside central differences of forces: deviation, time and memory.

    python -m benchmarks.hessian [MODEL] [--sizes 64,216,1000] [--rows 10]

MODEL is a model file with Si, or the name of a universal model; without it, a potential of the
default size with random weights. Each measurement runs in a process of its own. Times are CPU
times: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from benchmarks.ours import random_model
from benchmarks.sheets import Sheet, console
from benchmarks.silicon import noise, supercell
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.hessian import hessian
from tesseral.deploy.modelfile import save_model
from tesseral.process import keep_freed_memory


class Job(NamedTuple):
    """One measurement."""

    model: str
    atoms: int
    rows: int  # number of atoms whose rows are computed
    dtype: str
    step: float | None  # Å, of differences; None for the exact Hessian


class Found(NamedTuple):
    """Result of a measurement."""

    matrix: np.ndarray  # eV/Å²
    seconds: float  # CPU time
    megabytes: float  # that the process needed in addition


def measure(job: Job) -> Found:
    """Compute the rows of a Hessian."""
    keep_freed_memory()
    atoms = supercell(job.atoms)
    atoms.positions += noise(job.atoms, np.random.default_rng(0))
    atoms.calc = TesseralCalculator(job.model, device="cpu", dtype=job.dtype)
    small = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.4]])
    small.calc = atoms.calc
    hessian(small)  # loads what is loaded once
    atoms.get_forces()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    matrix = hessian(atoms, range(job.rows), step=job.step)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Found(matrix, seconds, (peak - before) / 1000)


def alone(job: Job) -> Found:
    """The measurement in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, job).result()


def rows_of(model: str, sizes: Sequence[int], limit: int | None, step: float) -> list[list[str]]:
    """Rows of the table."""
    table = []
    for size in sizes:
        rows = size if limit is None else min(limit, size)
        exact = alone(Job(model, size, rows, "float64", None))
        single = alone(Job(model, size, rows, "float32", None))
        moved = alone(Job(model, size, rows, "float64", step))
        largest = np.abs(exact.matrix).max()
        deviations = (np.abs(other.matrix - exact.matrix).max() for other in (moved, single))
        times = (f"{1000 * one.seconds / rows:.0f}" for one in (exact, single, moved))
        sizes_mb = (f"{one.megabytes:.0f}" for one in (exact, single, moved))
        table.append(
            [f"{size}", f"{rows}", f"{largest:.1f}", *(f"{one:.1e}" for one in deviations)]
            + [*times, *sizes_mb]
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hessian", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model", nargs="?", help="model file or name of a universal model")
    parser.add_argument("--sizes", default="64,216,1000", help="numbers of atoms, 8 n³")
    parser.add_argument("--rows", type=int, help="only the rows of this many atoms")
    parser.add_argument("--step", type=float, default=1e-5, help="Å, of differences (%(default)s)")
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(Path(folder, "random.safetensors"))
        if options.model is None:
            save_model(Path(model), *random_model({}))
        rows = rows_of(model, sizes, options.rows, options.step)
    kinds = "exact", "float32", "differences"
    heads = ["atoms", "rows of", "largest", "off differences", "off in float32"]
    heads += [f"{unit}, {kind}" for unit in ("ms/atom", "MB") for kind in kinds]
    sheet = Sheet("Hessian in float64, eV/Å²", heads, rows=rows)
    console().print(sheet.markdown(), soft_wrap=True)


if __name__ == "__main__":
    main()
