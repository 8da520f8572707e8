"""Time of a step against the error of forces, of potentials trained on silicon of mlearn.

    python -m benchmarks.front --ours NAME=MODEL.safetensors … --ace NAME=FIT/model.npz …

All are timed in turn on one thread: ours with energy, forces and stress by the ASE calculator,
linear ACE by the C++ kernel of ace-jax on a given neighbour list (forces), SNAP and quadratic SNAP
by LAMMPS (MD steps with the virial). Errors are MAE on the test set. The table, the numbers and a
picture are written to --output; where CPU seconds of training are given, the same for the time of
training:

    … --trained NAME=SECONDS … --others NAME=SECONDS:ERROR …
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from rich.console import Console

from benchmarks.machine import machine
from benchmarks.peers.environments import Peers
from benchmarks.plots import few
from benchmarks.sheets import Sheet, cell, console, report, save
from benchmarks.workers import Job, Specification, interleave, workers

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

OTHERS = "networks, from another table"
KINDS = {"tesseral": "C0", "linear ACE (ace-jax)": "C1", "SNAP (LAMMPS)": "C2", OTHERS: "C3"}


def named_file(text: str) -> tuple[str, Path]:
    """Name and path from NAME=PATH.

    Raises:
        argparse.ArgumentTypeError: there is no such file, or no name.
    """
    name, equals, path = text.partition("=")
    if not (name and equals and Path(path).is_file()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH of an existing file")
    return name, Path(path)


def named_numbers(text: str) -> tuple[str, list[float]]:
    """Name and numbers from NAME=NUMBER:NUMBER….

    Raises:
        argparse.ArgumentTypeError: there is no name, or something else than numbers.
    """
    name, _, numbers = text.partition("=")
    try:
        return name, [float(number) for number in numbers.split(":")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from None


def potentials(options: argparse.Namespace) -> list[Specification]:
    """The potentials to measure."""
    peers = Peers(options.envs, options.data)
    found = []
    for name, path in options.ours:
        found.append(
            Specification(
                name=f"tesseral: {name}",
                factory="benchmarks.ours:Inference",
                arguments={"config": {}, "model": str(path.resolve()), "ops": "auto"},
                facts={"kind": "tesseral"},
            )
        )
    for name, path in options.ace:
        found.append(
            Specification(
                name=f"linear ACE: {name}",
                factory="benchmarks.peers.ace:Ace",
                arguments={"path": str(path.resolve())},
                python=peers.program("ace", "python"),
                torch=False,
                facts={"kind": "linear ACE (ace-jax)"},
                variables={"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
            )
        )
    folder = (options.data / "mlearn" / "snap_si").resolve()
    lammps = Path(
        peers.program("lammps", "python") if peers.installed("lammps") else sys.executable
    )
    for name, title in (("SNAPotential", "SNAP"), ("qSNAPotential", "quadratic SNAP")):
        found.append(
            Specification(
                name=title,
                factory="benchmarks.peers.snap:Snap",
                arguments={"folder": str(folder), "name": name},
                python=str(lammps),
                torch=False,
                variables={"LD_LIBRARY_PATH": str(lammps.parent.parent / "lib")},
                facts={"kind": "SNAP (LAMMPS)"},
            )
        )
    return found


def measure(options: argparse.Namespace, terminal: Console) -> list[dict[str, Any]]:
    """One row for each potential: seconds per step, errors."""
    listed = potentials(options)
    test = str((options.data / "mlearn" / "Si_test.extxyz").resolve())
    jobs = [
        Job("step", "step", {"n_atoms": options.atoms}),
        Job("errors", "errors", {"file": test}, seconds=0.0),
    ]
    rows = []
    with workers(listed, options.output / "logs") as started:
        with terminal.status("errors on the test set"):
            errors = interleave(started, jobs[1:], rounds=1, warmup=0, seconds=0.0)
        with terminal.status("times") as status:
            times = interleave(
                started,
                jobs[:1],
                rounds=options.rounds,
                warmup=2,
                seconds=options.seconds,
                advance=status.update,
            )
        for worker in started:
            step, found = times[worker.name, "step"].summary(), errors[worker.name, "errors"]
            row = {
                "name": worker.name,
                "kind": worker.specification.facts["kind"],
                "weights": worker.info.get("parameters"),
                "errors": found.result,
            }
            problem = found.error or step.get("error")
            row |= {"error": problem} if problem else {"seconds": step["cpu_median"]}
            rows.append(row)
    return rows


def sheet(rows: Sequence[dict[str, Any]], atoms: int) -> Sheet:
    """Table of times and errors, the fastest first."""
    made = Sheet(
        f"Silicon: time per atom and step ({atoms} atoms, one thread), MAE on the test set",
        ["potential", "µs/atom", "meV/Å", "meV/atom", "GPa", "weights"],
    )
    for row in sorted(rows, key=lambda row: row.get("seconds", 1e9)):
        if "error" in row:
            made.rows.append([row["name"], row["error"], *[""] * 4])
            continue
        errors = [cell(row["errors"][name]) for name in ("forces", "energy", "stress")]
        weights = f"{row['weights']:,}" if row["weights"] else "–"
        made.rows.append([row["name"], cell(1e6 * row["seconds"] / atoms), *errors, weights])
    return made


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of the points (time, error) that no other point beats in both, by time."""
    best: list[tuple[float, float]] = []
    for time, error in sorted(points):
        if not best or error < best[-1][1]:
            best.append((time, error))
    return best


def trained_rows(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows with the CPU time of the training, measured or given, the shortest first."""
    times = {name: numbers[0] for name, numbers in options.trained}
    named = [(row["name"].split(": ")[-1], row) for row in rows]
    own = [{**row, "trained": times[name]} for name, row in named if name in times]
    others = [
        {"name": name, "kind": OTHERS, "trained": seconds, "errors": {"forces": error}}
        for name, (seconds, error) in options.others
    ]
    return sorted(own + others, key=lambda row: float(row["trained"]))


def training_sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Table of times of training and errors, the shortest first."""
    made = Sheet(
        "Silicon: CPU time of the training, MAE on the test set",
        ["potential", "CPU s", "meV/Å", "meV/atom", "GPa"],
    )
    for row in rows:
        errors = [
            cell(row["errors"][name]) if name in row["errors"] else "–"
            for name in ("forces", "energy", "stress")
        ]
        made.rows.append([row["name"], cell(row["trained"]), *errors])
    return made


def plot(points: Sequence[dict[str, Any]], times: Sequence[float], label: str, path: Path) -> None:
    """Errors against times; a line joins those that no other beats in both."""
    figure, axes = pyplot.subplots(figsize=(8, 5.2), layout="constrained")
    errors = [row["errors"]["forces"] for row in points]
    for kind, color in KINDS.items():
        own = [row for row in points if row["kind"] == kind]
        x = [time for row, time in zip(points, times, strict=True) if row["kind"] == kind]
        y = [row["errors"]["forces"] for row in own]
        if not own:
            continue
        axes.loglog(x, y, "o", color=color, label=kind)
        for number, (row, *place) in enumerate(zip(own, x, y, strict=True)):
            text, where = row["name"].split(": ")[-1], (5, -11 if number % 2 else 4)
            axes.annotate(text, place, xytext=where, textcoords="offset points", fontsize=8)
    best = front(list(zip(times, errors, strict=True)))
    axes.loglog(*zip(*best, strict=True), "k--", linewidth=0.8, label="none faster and better")
    axes.set(xlabel=label, ylabel="MAE of forces, meV/Å")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(few))
    axes.margins(x=0.15)
    axes.grid(True, which="both", alpha=0.2)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, save and plot."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=named_file, nargs="*", default=[], help="model files")
    parser.add_argument("--ace", type=named_file, nargs="*", default=[], help="models of aj fit")
    parser.add_argument(
        "--trained", type=named_numbers, nargs="*", default=[], help="CPU s of their training"
    )
    parser.add_argument(
        "--others", type=named_numbers, nargs="*", default=[], help="CPU s and meV/Å of others"
    )
    parser.add_argument("--envs", type=Path, default=Path("runs/peers"))
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TESSERAL_DATA", "../shared/data"))
    )
    parser.add_argument("--output", type=Path, default=Path("runs/front"))
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="duration of each burst")
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    options = parser.parse_args(arguments)
    known = {name for name, _ in (*options.ours, *options.ace)}
    for name, _ in options.trained:
        if name not in known:
            parser.error(f"--trained {name} is not among the potentials of --ours and --ace")
    for name, numbers in options.others:
        if len(numbers) != 2:
            parser.error(f"--others {name} needs two numbers, SECONDS:ERROR")
    terminal, facts = console(), machine()
    rows = measure(options, terminal)
    sheets, trained = [sheet(rows, options.atoms)], trained_rows(rows, options)
    found = {"machine": facts, "atoms": options.atoms, "rows": rows, "trained": trained}
    save(options.output / "front.json", found)
    timed = [row for row in rows if "seconds" in row]
    times = [1e6 * row["seconds"] / options.atoms for row in timed]
    plot(timed, times, "µs per atom and step on one core", options.output / "front.png")
    if trained:
        sheets.append(training_sheet(trained))
        times = [row["trained"] for row in trained]
        plot(trained, times, "CPU seconds of training", options.output / "training.png")
    words = ["python", "-m", "benchmarks.front", *arguments]
    report(sheets, facts, words, terminal, options.markdown)


if __name__ == "__main__":
    main()
