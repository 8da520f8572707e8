"""Time and memory of energy, forces and stress, compared with SevenNet's own calculator."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from benchmarks.plots import plot_scaling
from benchmarks.sheets import Sheet, cell, save
from benchmarks.universal.calculators import MATERIALS
from benchmarks.universal.programs import named, ours, peer
from benchmarks.workers import Job, Specification, Worker, interleave, workers

SIZES = (64, 216, 512, 1000)


def speed_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Time both in turn at all sizes of all materials."""
    return time_programs(options, terminal, [ours(options), peer(options, "sevennet")], "speed")


def model_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Time several models in turn."""
    programs = [named(options, model) for model in options.models]
    return time_programs(options, terminal, programs, "times")


def time_programs(
    options: argparse.Namespace, terminal: Console, programs: list[Specification], name: str
) -> list[Sheet]:
    """Time programs in turn at all sizes of all materials; ``name`` is that of the files."""
    rows: list[dict[str, Any]] = []
    with workers(programs, options.output / "logs") as started:
        for n_atoms in sorted(options.sizes):
            terminal.print(f"{n_atoms} atoms of {', '.join(MATERIALS)}")
            jobs = [
                Job(name, "material_step", {"material": name, "n_atoms": n_atoms})
                for name in MATERIALS
            ]
            timings = interleave(
                started, jobs, rounds=options.rounds, warmup=1, seconds=options.seconds
            )
            for material in MATERIALS:
                for worker in started:
                    step = timings[worker.name, material].summary()
                    rows.append(_row(worker, material, n_atoms, step))
    save(options.output / f"{name}.json", {"rows": rows})
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if "cpu_median" in row["step"]:
            points = curves.setdefault(f"{row['name']}, {row['material']}", [])
            points.append((row["atoms"], row["step"]["cpu_median"]))
    plot_scaling(curves, "Energy, forces and stress, CPU time", options.output / f"{name}.png")
    return [speed_sheet(rows)]


def speed_sheet(rows: list[dict[str, Any]]) -> Sheet:
    """Table of the times per atom, and their ratios to the first program."""
    sheet = Sheet(
        "Energy, forces and stress through ASE, 1 thread",
        ("material", "atoms", "potential", "wall ms/atom", "CPU ms/atom", "ratio", "MB", "of ours"),
        "Medians. ratio: CPU time divided by ours. MB: peak above the import of torch, most "
        "meaningful for the largest size; of ours: divided by ours.",
    )
    first = {(row["material"], row["atoms"]): row for row in reversed(rows)}
    for row in rows:
        texts = [row["material"], str(row["atoms"]), row["name"]]
        step = row["step"]
        if "error" in step:
            sheet.rows.append([*texts, step["error"], "", "", "", ""])
            continue
        reference = first[row["material"], row["atoms"]]
        scale = 1e3 / row["atoms"]
        texts += [cell(scale * step["wall_median"]), cell(scale * step["cpu_median"])]
        if "error" in reference["step"]:
            sheet.rows.append([*texts, "–", cell(row["peak_mb"]), "–"])
            continue
        texts += [
            cell(step["cpu_median"] / reference["step"]["cpu_median"]),
            cell(row["peak_mb"], 4),
            cell(row["peak_mb"] / reference["peak_mb"]),
        ]
        sheet.rows.append(texts)
    return sheet


def _row(worker: Worker, material: str, n_atoms: int, step: dict[str, Any]) -> dict[str, Any]:
    row = {"name": worker.name, "material": material, "atoms": n_atoms, "step": step}
    if "peak_mb" in step:
        row["peak_mb"] = step["peak_mb"] - worker.before_mb
    return row
