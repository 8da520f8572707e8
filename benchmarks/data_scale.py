"""Import, merge, opening, streaming and memory for a store of a million structures.

``python -m benchmarks.data_scale runs/scale.h5`` makes the store, if it does not exist, from random
molecules of 6 to 12 atoms: 2% of them are imported from an extxyz file, and copies of the result
are merged. The output is two tables, and a figure of the memory against the structures read.

CPU seconds are summed over all processes; on a shared machine they are more meaningful than the
wall-clock time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.build import bulk
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import machine
from benchmarks.plots import pyplot
from benchmarks.sheets import Sheet, cell, console, report
from tesseral.data.loading.datamodule import DataConfig, PotentialDataModule
from tesseral.data.loading.sampler import EdgeBudgetSampler
from tesseral.data.store.format import Block, make_block
from tesseral.data.store.merge import merge_stores
from tesseral.data.store.read import Store, open_store, write_store
from tesseral.data.store.verify import verify_store
from tesseral.data.structures import Structure, make_structure

COPIES = 50
CUTOFF = 5.0  # Å
BATCH = 256  # structures
OPEN = """
import time
import h5py, tesseral.data.store.read as store
start = time.perf_counter()
found = store.open_store({path!r})
print(time.perf_counter() - start)
found[len(found) // 2]
print(time.perf_counter() - start)
"""


class Cost(NamedTuple):
    """Wall-clock seconds, and CPU seconds of all processes."""

    wall: float
    cpu: float


class Raw(Dataset[Structure]):
    """Dataset of the unchanged structures of a store."""

    def __init__(self, store: Store) -> None:
        """Take the path of a store."""
        self.store = store

    def __getitem__(self, row: int) -> Structure:
        return self.store[row]


@contextmanager
def timed() -> Iterator[list[Cost]]:
    """Append the cost of the block to the list; its workers must have ended."""
    result: list[Cost] = []
    start = _cpu(), time.perf_counter()
    yield result
    result.append(Cost(time.perf_counter() - start[1], _cpu() - start[0]))


def _cpu() -> float:
    """CPU seconds of this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def memory_mb() -> float:
    """Memory of this process and its children; shared memory counts once (Linux)."""
    total = 0.0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for process in ("self", *children):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024
    return total


def write_molecules(path: Path, count: int) -> None:
    """Write random molecules with random labels in the format of a DFT program."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for i in range(count):
            n = int(rng.integers(6, 13))
            rows = rng.random((n, 6)) * 5
            file.write(
                f"{n}\nProperties=species:S:1:pos:R:3:forces:R:3 "
                f'energy={-100 - 1e-3 * i:.6f} group=molecule{i // 100} pbc="F F F"\n'
            )
            for symbol, row in zip(rng.choice(["C", "H", "O"], n), rows, strict=True):
                file.write(f"{symbol} " + " ".join(f"{x:.8f}" for x in row) + "\n")


def write_cells(path: Path, count: int) -> None:
    """Perturbed diamond cells of 8 atoms."""
    rng = np.random.default_rng(0)
    perfect = bulk("Si", cubic=True)
    write_store(
        path,
        (
            make_structure(
                [14] * 8,
                perfect.positions + 0.1 * rng.normal(size=(8, 3)),
                cell=perfect.cell.array,
                energy=-43.0,
                forces=rng.normal(size=(8, 3)),
            )
            for _ in range(count)
        ),
    )


def train_potential(*arguments: str) -> None:
    """Run the command, since processes of an import would otherwise load this whole module."""
    command = [sys.executable, "-m", "tesseral.commands.main", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_store(path: Path, count: int, workers: int, sheet: Sheet) -> Path:
    """The store and its imported part; both are made if they do not exist."""
    part, text = path.with_suffix(".part.h5"), path.with_suffix(".extxyz")
    if not part.exists():
        write_molecules(text, count // COPIES)
        for processes in (1, workers):
            command = ["data", "import", str(text), "-o", str(part), "--overwrite"]
            with timed() as costs:
                train_potential(*command, "--processes", str(processes))
            add(sheet, f"import of extxyz, processes: {processes}", count // COPIES, costs[0])
        text.unlink()
    if not path.exists():
        with timed() as costs:
            merge_stores([part] * COPIES, path)
        add(sheet, "merge, sources verified", count, costs[0])
    return part


def add(sheet: Sheet, name: str, count: int, cost: Cost) -> None:
    """A row of the sheet."""
    rates = (cell(count / cost.wall), cell(count / cost.cpu))
    sheet.rows.append((name, f"{count:,}", cell(cost.wall), cell(cost.cpu), *rates))


def raw_stream(store: Store, workers: int, segments: bool) -> DataLoader[Any]:
    """Shuffled structures as blocks of flat arrays, without neighbour lists."""
    sampler = EdgeBudgetSampler(
        np.ones(len(store)),
        max_structures=BATCH,
        max_edges=BATCH,
        segments=store.segments if segments else None,
    )
    return DataLoader(Raw(store), batch_sampler=sampler, collate_fn=make_block, num_workers=workers)


def training_data(path: Path, workers: int) -> PotentialDataModule:
    """Loader of batches with neighbour lists, as used by ``fit``."""
    data = PotentialDataModule(
        DataConfig(
            train=str(path),
            batch_structures=BATCH,
            batch_edges=100 * BATCH,
            workers=workers,
            cache_gigabytes=0.0,
        ),
        CUTOFF,
    )
    data.setup()
    return data


def stream(loader: Iterable[Any], limit: int, watch: Callable[[int], None] | None = None) -> int:
    """Number of structures read, at least ``limit`` if the store is large enough."""
    taken = 0
    for batch in loader:
        taken += len(batch.starts) - 1 if isinstance(batch, Block) else len(batch.index)
        if watch is not None:
            watch(taken)
        if taken >= limit:
            break
    return taken


def measure_streams(path: Path, cells: Path, workers: int, limit: int, sheet: Sheet) -> None:
    """Rows of the sheet."""
    for number in (0, workers):
        for name, segments in (("by segments", True), ("anywhere", False)):
            amount = limit if segments else limit // 20
            with timed() as costs:
                taken = stream(raw_stream(open_store(path), number, segments), amount)
            add(sheet, f"raw, shuffled {name}, workers: {number}", taken, costs[0])
    for name, store in (("molecules of 6–12 atoms", path), ("cells of 8 atoms", cells)):
        for number in (0, workers):
            data = training_data(store, number)
            with timed() as costs:
                taken = stream(data.train_dataloader(), limit // 20)
            add(sheet, f"batches with neighbours: {name}, workers: {number}", taken, costs[0])


def measure_access(path: Path, sheet: Sheet) -> None:
    """Opening, verifying and shuffling."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN.format(path=str(path))],
        capture_output=True,
        text=True,
        check=True,
    )
    opened, first = (1000 * float(word) for word in done.stdout.split())
    store = open_store(path)
    sheet.rows.append(("size of the file", f"{path.stat().st_size / 1e6:,.0f} MB"))
    sheet.rows.append(("opening", f"{opened:.0f} ms"))
    sheet.rows.append(("opening and reading one structure", f"{first:.0f} ms"))
    with timed() as costs:
        verify_store(store)
    sheet.rows.append(("verifying all hashes", f"{costs[0].cpu:.1f} s of CPU"))
    with timed() as costs:
        sampler = EdgeBudgetSampler(
            np.full(len(store), 90), max_structures=16, max_edges=1600, segments=store.segments
        )
        next(iter(sampler))
    sheet.rows.append(
        ("first batch of 16 from the sampler", f"{1000 * costs[0].cpu:.0f} ms of CPU")
    )


def draw_memory(stores: list[Path], workers: int, limit: int, figure: Path) -> float:
    """Peak memory of all processes in MB while batches with neighbour lists are read."""
    image, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    highest = 0.0
    for path in stores:
        points: list[tuple[int, float]] = []

        def watch(taken: int, points: list[tuple[int, float]] = points) -> None:
            if not points or taken - points[-1][0] > limit / 100:
                points.append((taken, memory_mb()))

        stream(training_data(path, workers).train_dataloader(), limit, watch)
        highest = max(highest, *(memory for _, memory in points))
        label = f"store of {len(open_store(path)):,}"
        axes.plot(*zip(*points, strict=True), label=label)
    axes.set(
        xlabel="structures read in shuffled order, with neighbour lists",
        ylabel=f"memory of all processes ({workers} workers), MB",
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.parent.mkdir(parents=True, exist_ok=True)
    image.savefig(figure, dpi=130)
    return highest


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("store", type=Path, nargs="?", default=Path("runs/data_scale/million.h5"))
    parser.add_argument(
        "--structures", type=int, default=1_000_000, help="structures in the store (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument(
        "--read", type=int, default=200_000, help="structures to read (%(default)s)"
    )
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--figure", type=Path, help="image file. Default: next to the store")
    options = parser.parse_args()
    path, count = options.store, options.structures
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ("", "structures", "wall s", "CPU s", "per s", "per CPU s")
    rates = Sheet("Throughput", columns, "per s: structures per second of wall-clock time")
    access = Sheet(f"A store of {count:,} structures", ("", ""))
    part = make_store(path, count, options.workers, rates)
    cells = path.with_suffix(".cells.h5")
    if not cells.exists():
        write_cells(cells, max(1000, options.read // 10))
    figure = options.figure or path.with_suffix(".png")
    highest = draw_memory([part, path], options.workers, options.read // 4, figure)
    measure_access(path, access)
    access.rows.append(
        (f"memory of training data, {options.workers} workers", f"{highest:,.0f} MB")
    )
    measure_streams(path, cells, options.workers, options.read, rates)
    command = ["python", "-m", "benchmarks.data_scale", *sys.argv[1:]]
    report([access, rates], machine(), command, console(), options.markdown)


if __name__ == "__main__":
    main()
