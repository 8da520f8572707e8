"""Speed of tesseral: time, memory and arithmetic rate of a step against the number of atoms.

    python -m benchmarks.speed [--sizes 64,216,512] [--threads 1,2] [--ops fused,reference]
                               [--channels 32] [--l-max 2] [--layers 2] [--model FILE]
                               [--training] [--keep-memory] [--output runs/speed]
                               [--markdown FILE]

A step is energy, forces and stress of diamond silicon with Gaussian noise of 0.05 Å, new in each
step, through the ASE calculator; with --training it is an optimiser step on 4 structures of 64
atoms. Every setting has its own process, and the timings of the processes alternate.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.machine import free_memory_mb, machine
from benchmarks.plots import plot_scaling
from benchmarks.sheets import console, report, save
from benchmarks.silicon import supercell
from benchmarks.speed_sheets import inference_sheet, training_sheet
from benchmarks.workers import KEEP_MEMORY, Job, Specification, Timing, Worker, interleave, workers

MATRIX_FLOPS = 2 * 1024.0**3
DYNAMICS = {"n_atoms": 216, "steps": 200, "temperature": 600.0}
STEPS_PER_LIST = 17.0  # steps of 1 fs at 600 K with a skin of 0.5 Å, for SNAP of mlearn
STRUCTURES, STRUCTURE_ATOMS = 4, 64


def integers(text: str) -> list[int]:
    """Integers of a comma-separated list."""
    return [int(word) for word in text.split(",")]


def specifications(options: argparse.Namespace) -> list[Specification]:
    """One worker for each combination of the requested settings."""
    factory = "ours_training:Training" if options.training else "ours:Inference"
    found = []
    sweep = {"channels": options.channels, "l_max": options.l_max, "layers": options.layers}
    given = {name: values for name, values in sweep.items() if values}
    for values in itertools.product(*given.values()):
        config = dict(zip(given, values, strict=True))
        label = "".join(f" {name} {value}" for name, value in config.items())
        for ops, threads in itertools.product(options.ops, options.threads):
            work: dict[str, Any] = {"config": config, "ops": ops}
            if options.training:
                work |= {"structures": STRUCTURES, "n_atoms": STRUCTURE_ATOMS}
            else:
                work["model"] = options.model and str(options.model.resolve())
            found.append(
                Specification(
                    name=f"{ops}{label}, {threads} thread{'s' * (threads > 1)}",
                    factory=f"benchmarks.{factory}",
                    arguments=work,
                    threads=threads,
                    facts={"ops": ops, "threads": threads, **config},
                )
            )
    return found


def flops_per_atom(info: dict[str, Any]) -> float:
    """Number of operations in an inference step."""
    # Imported here: this process times other packages too and does not load ours otherwise.
    from benchmarks.flops import inference_flops
    from tesseral.potentials.architectures.facet import FacetConfig

    parts = inference_flops(FacetConfig(**info["config"]), info["neighbors"])
    return float(parts["total"])


def enough_memory(worker: Worker, rows: list[dict[str, Any]], n_atoms: int) -> bool:
    """Whether the next size fits, judged from the last size; if not, the worker is stopped."""
    before = [row for row in rows if row["name"] == worker.name and "peak_mb" in row]
    if not before:
        return True
    last = before[-1]
    needed = last["peak_mb"] * n_atoms / last["atoms"]
    if needed < free_memory_mb():
        return True
    worker.error = f"{n_atoms} atoms would need about {needed / 1e3:.0f} GB"
    return False


def measure(options: argparse.Namespace, terminal: Console) -> list[dict[str, Any]]:
    """Time all settings at all sizes; one row for each."""
    sizes = [STRUCTURES * STRUCTURE_ATOMS] if options.training else sorted(options.sizes)
    listed = specifications(options)
    product = Job("sgemm", "sgemm", seconds=0.1)
    rows: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        workers(listed, options.output / "logs") as started,
        Progress(*columns, console=terminal) as progress,
    ):
        per_list = steps_per_list(started[0]) if options.model else STEPS_PER_LIST
        for n_atoms in sizes:
            jobs = [Job("step", "step"), product]
            if not options.training:
                jobs = inference_jobs(n_atoms)
            fitting = [worker for worker in started if enough_memory(worker, rows, n_atoms)]
            count = len(fitting) * len(jobs) * (options.rounds + options.warmup)
            task = progress.add_task(f"{n_atoms} atoms", total=count)

            def advance(name: str, task: Any = task, n_atoms: int = n_atoms) -> None:
                progress.update(task, advance=1, description=f"{n_atoms} atoms: {name}")

            timings = interleave(
                fitting,
                jobs,
                rounds=options.rounds,
                warmup=options.warmup,
                seconds=options.seconds,
                advance=advance,
            )
            progress.update(task, description=f"{n_atoms} atoms")
            for worker in started:
                rows.append(row_of(worker, n_atoms, timings, jobs, per_list))
    return rows


def inference_jobs(n_atoms: int) -> list[Job]:
    """Jobs to time at one size, and a matrix product for comparison."""
    where = {"n_atoms": n_atoms}
    return [
        Job("step", "step", where),
        Job("rebuilt", "rebuilt", where),
        Job("search", "search", where, seconds=0.1),
        Job("check", "check", where, seconds=0.1),
        Job("sgemm", "sgemm", seconds=0.1),
    ]


def steps_per_list(worker: Worker) -> float:
    """Steps of molecular dynamics between two neighbour searches, for the given model."""
    answer = worker.call(Job("dynamics", "dynamics", DYNAMICS), 0.0)
    if "error" in answer:
        raise SystemExit(f"molecular dynamics with this model failed: {answer['error']}")
    return float(DYNAMICS["steps"] / max(answer["result"]["builds"], 1))


def row_of(
    worker: Worker,
    n_atoms: int,
    timings: dict[tuple[str, str], Timing],
    jobs: Sequence[Job],
    per_list: float,
) -> dict[str, Any]:
    """Results for one setting and size, in seconds and MB."""
    facts = worker.specification.facts
    row: dict[str, Any] = {"name": worker.name, "atoms": n_atoms, **facts, "info": worker.info}
    own = {job.label: timings.get((worker.name, job.label), Timing()) for job in jobs}
    row |= {label: timing.summary() for label, timing in own.items()}
    step = row["step"]
    if "error" in step:
        row["error"] = worker.error or step["error"]
        return row
    peak = max(timing.peak_mb for label, timing in own.items() if label != "sgemm")
    row |= {"peak_mb": peak - worker.before_mb, "before_mb": worker.before_mb}
    rate = MATRIX_FLOPS / row["sgemm"]["wall_min"] / 1e9 if "wall_min" in row["sgemm"] else None
    row["sgemm_gflops_per_thread"] = rate and rate / facts["threads"]
    if "wall_median" in row.get("search", {}):
        search = row["search"]["wall_median"] / per_list
        share = (search + row["check"]["wall_median"]) / (step["wall_median"] + search)
        row |= {"steps_per_list": per_list, "list_share": share}
        flops = flops_per_atom(worker.info)
        if flops is not None and rate:
            row["gflops"] = flops * n_atoms / step["wall_min"] / 1e9
            row |= {"flops_per_atom": flops, "of_sgemm": row["gflops"] / rate}
    return row


def matrix_rates(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The best rate of a float32 matrix product in the run, for each number of threads."""
    best: dict[int, float] = {}
    for row in rows:
        rate = row.get("sgemm_gflops_per_thread") or 0.0
        best[row["threads"]] = max(rate, best.get(row["threads"], 0.0))
    texts = [f"{rate:.0f} GFLOP/s and thread with {n}" for n, rate in best.items()]
    return {"matrix product of 1024³": ", ".join(texts)}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command-line options, checked before any process is started."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=integers, default=[64, 216, 512, 1000, 1728, 4096])
    parser.add_argument("--threads", type=integers, default=[1, 2])
    parser.add_argument("--ops", type=lambda text: text.split(","), default=["fused", "reference"])
    parser.add_argument("--channels", type=integers, help="widths of the model to sweep")
    parser.add_argument("--l-max", type=integers, help="degrees of the model to sweep")
    parser.add_argument("--layers", type=integers, help="numbers of layers to sweep")
    parser.add_argument("--model", type=Path, help="model file with Si. Default: random weights")
    parser.add_argument("--training", action="store_true", help="time training steps instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="warm-up rounds, not counted")
    parser.add_argument("--seconds", type=float, default=0.5, help="duration of each burst")
    parser.add_argument(
        "--keep-memory", action="store_true", help="let malloc keep freed memory in all processes"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/speed"))
    parser.add_argument("--markdown", type=Path, help="file to write the tables to")
    options = parser.parse_args(arguments)
    if options.model and (options.training or options.channels or options.l_max or options.layers):
        parser.error("--model cannot be combined with --training or sizes of the model")
    if options.model and not options.model.is_file():
        parser.error(f"there is no model file {options.model}")
    try:
        for size in options.sizes:
            supercell(size)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, save and plot."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    terminal = console()
    facts = machine()
    if options.keep_memory:
        os.environ.update(KEEP_MEMORY)
    rows = measure(options, terminal)
    facts |= matrix_rates(rows)
    name = "training" if options.training else "speed"
    save(options.output / f"{name}.json", {"machine": facts, "rows": rows})
    batch = f"{STRUCTURES} structures of {STRUCTURE_ATOMS} atoms"
    sheet = training_sheet(rows, batch) if options.training else inference_sheet(rows)
    command = ["python", "-m", "benchmarks.speed", *arguments]
    report([sheet], facts, command, terminal, options.markdown)
    if not options.training:
        curves: dict[str, list[tuple[int, float]]] = {row["name"]: [] for row in rows}
        for row in rows:
            if "error" not in row:
                curves[row["name"]].append((row["atoms"], row["step"]["wall_median"]))
        plot_scaling(
            curves, f"Energy, forces and stress; {facts['processor']}", options.output / "speed.png"
        )


if __name__ == "__main__":
    main()
