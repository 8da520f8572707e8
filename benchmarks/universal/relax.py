"""Relaxation of 50 perturbed crystals with their cells, with each potential in turn.

Ours relaxes all of them together, again and again between those of the other programs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write
from rich.console import Console

from benchmarks.sheets import Sheet, cell, save
from benchmarks.universal.programs import ours, peer
from benchmarks.universal.structures import SEED, cell_of, compounds, deformed, rattled
from benchmarks.workers import Job, Worker, workers

ELEMENTS = ("Al", "Cu", "Si", "Ge", "Fe", "W", "Mg", "Ti", "Na", "Pt", "Nb", "Zn", "C", "Zr")
STRAIN, NOISE = 0.04, 0.1  # strain of the cell; Å
TURN = 10  # crystals of the others between two runs of ours
MACE_SIZES = {"128x0e": "small", "128x0e+128x1o": "medium"}


def crystals() -> list[Atoms]:
    """50 compounds and elements, strained by up to 4% and moved by 0.1 Å."""
    generator = np.random.default_rng(SEED)
    listed = [*compounds(), *((symbol, cell_of(symbol)) for symbol in ELEMENTS)]
    made = []
    for label, source in listed:
        moved = rattled(deformed(source, STRAIN, generator), NOISE, generator)
        made.append(
            Atoms(moved.numbers, moved.positions, cell=moved.cell, pbc=True, info={"label": label})
        )
    return made


def relax_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Relax with the potentials in turn; time only steps of MACE, which has no weights here."""
    path = options.output / "crystals.xyz"
    options.output.mkdir(parents=True, exist_ok=True)
    made = crystals()
    number = min(options.number, len(made))
    frames = [made[i] for i in np.linspace(0, len(made) - 1, number).round().astype(int)]
    write(path, frames, format="extxyz")
    if options.models:
        relaxing = [
            replace(ours(options, path), name=path.stem) for path in map(Path, options.models)
        ]
        stepping = []
    else:
        others = [name for name in ("sevennet", "chgnet") if name in options.peers]
        relaxing = [ours(options), *(peer(options, name) for name in others)]
        sizes = MACE_SIZES if "mace" in options.peers else ()
        stepping = [peer(options, "mace", hidden=hidden) for hidden in sizes]
    labels = [atoms.info["label"] for atoms in frames]
    where = str(path.resolve())
    common = {"structures": where, "fmax": options.fmax, "steps": options.steps}
    results: dict[str, list[dict[str, Any]]] = {}
    together: dict[str, list[dict[str, Any]]] = {}
    with workers([*relaxing, *stepping], options.output / "logs") as started:
        for worker in started:  # initial work of a program is not timed
            worker.call(Job("warm", "moved", {"structures": where, "number": 0}), 0.0)
        for number, label in enumerate(labels):
            terminal.print(f"{number + 1}/{len(labels)} {label}")
            for worker in started:
                at = {"structures": where, "number": number}
                ours_now = worker.specification.factory.endswith(":tesseral")
                if ours_now and options.optimizer == "BFGS":
                    if number % TURN == 0:
                        answer = worker.call(Job("relax", "relax_together", common), 0.0)
                        together.setdefault(worker.name, []).append(answer)
                        results[worker.name] = _shared(together[worker.name])
                    continue
                if worker.specification in relaxing:
                    settings = {**common, **at, "optimizer": options.optimizer}
                    answer = worker.call(Job("relax", "relax", settings), 0.0)
                else:
                    answer = worker.call(Job("step", "moved", at), options.seconds)
                results.setdefault(worker.name, []).append(_entry(worker, answer))
            save(options.output / "relax.json", {"crystals": labels, "results": results})
    stepped = [_stepped(results)] if stepping else []
    return [_relaxed(results, labels, options), *stepped]


def _entry(worker: Worker, answer: dict[str, Any]) -> dict[str, Any]:
    """Total seconds of a relaxation, or seconds of the median step without one."""
    if "error" in answer:
        return {"error": answer["error"]}
    cpu = statistics.median(answer["cpu"])
    return {"cpu": cpu, "wall": statistics.median(answer["wall"]), **answer["result"]}


def _shared(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry for each crystal of runs of all, with its share of the median time."""
    wrong = [answer for answer in answers if "error" in answer]
    if wrong:
        raise RuntimeError(f"relaxing together fails: {wrong[0]['error']}")
    entries = answers[-1]["result"]["relaxed"]
    times = {
        clock: statistics.median(answer[clock][0] for answer in answers) / len(entries)
        for clock in ("cpu", "wall")
    }
    return [{**times, **entry} for entry in entries]


def _relaxed(
    results: dict[str, list[dict[str, Any]]], labels: Sequence[str], options: argparse.Namespace
) -> Sheet:
    """Table of total time, steps, and volumes compared with SevenNet-0 or the first model."""
    reference = "SevenNet-0" if "SevenNet-0" in results else next(iter(results))
    sheet = Sheet(
        f"{len(labels)} crystals and their cells to {options.fmax:g} eV/Å, {options.optimizer}, "
        "1 thread",
        ("potential", "converged", "CPU s", "steps", "ms a step", "largest ΔV", "at", "median ΔV"),
        f"ΔV: deviation of the final volume from that of {reference}, if both converged.",
    )
    original = results[reference]
    for name, entries in results.items():
        done = [entry for entry in entries if "relaxation_steps" in entry]
        if not done:
            continue
        steps = sum(entry["relaxation_steps"] for entry in done)
        cpu = sum(entry["cpu"] for entry in done)
        apart = [
            (abs(one["volume"] / other["volume"] - 1), label)
            for one, other, label in zip(entries, original, labels, strict=True)
            if one.get("converged") and other.get("converged")
        ]
        most, where = max(apart, default=(float("nan"), "–"))
        median = statistics.median(value for value, _ in apart) if apart else float("nan")
        converged = sum(entry["converged"] for entry in done)
        sheet.rows.append(
            (name, f"{converged}/{len(entries)}", cell(cpu), str(steps), cell(1e3 * cpu / steps))
            + ((f"{100 * most:.2g}%", where, f"{100 * median:.2g}%"))
        )
    return sheet


def _stepped(results: dict[str, list[dict[str, Any]]]) -> Sheet:
    """Table of the mean time of a step on the same initial crystals."""
    sheet = Sheet(
        "MACE of the size of MACE-MP-0, random weights: a step on the same crystals",
        ("potential", "ms a step", "over ours"),
        "Energy, forces and stress. Ours: mean over the steps of its relaxations.",
    )
    means = {}
    for name, entries in results.items():
        found = [entry for entry in entries if "error" not in entry]
        steps = sum(entry.get("relaxation_steps", 1) for entry in found)
        if steps:
            means[name] = 1e3 * sum(entry["cpu"] for entry in found) / steps
    for name, mean in means.items():
        size = MACE_SIZES.get(name.removeprefix("MACE "), "")
        ratio = cell(mean / means["tesseral"]) if "tesseral" in means else "–"
        sheet.rows.append((f"{name} {size}".strip(), cell(mean), ratio))
    return sheet
