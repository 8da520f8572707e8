"""Section: time and memory against the number of atoms, in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from tesseral.process import machine
from tesseral.report.content import Section, number, table
from tesseral.report.context import Context
from tesseral.report.figures import BLUE, ORANGE, finish, panels, picture
from tesseral.report.verdicts import judge

SPACING = 5.0  # Å, vacuum between molecules in a larger sample
TIME_LIMIT = 300.0  # s, all sizes together
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def speed(context: Context) -> Section:
    """Microseconds per atom and step, and peak memory."""
    rows = measure(context, context.effort.sizes)
    # Other programs on the machine hardly change the CPU time.
    clock = "cpu_us_per_atom" if context.device == "cpu" else "us_per_atom"
    last = rows[-1]
    ratio = last[clock] / min(row[clock] for row in rows)
    stress = "energy, forces and stress" if rows[-1]["stress"] else "energy and forces"
    lines = [
        (
            f"{row['atoms']:,}",
            number(row["us_per_atom"]),
            number(1000 * row["seconds"]),
            number(_ns_per_day(row["seconds"], context.timesteps[0])),
            number(row["peak_mb"]),
        )
        for row in rows
    ]
    header = (
        "atoms",
        "µs per atom",
        "ms per step",
        f"ns per day at {context.timesteps[0]:g} fs",
        "memory (MB)",
    )  # noqa: E501
    where = machine(torch.device(context.device))
    shown = f"{ratio:.2f} times the best time per atom at {last['atoms']:,} atoms"
    return Section(
        lead=f"Time of {stress} through the ASE calculator in {context.dtype}, with all atoms "
        "moved slightly before each call as in MD (the fastest call counts), and the "
        f"memory above that of a process that has only loaded PyTorch. "
        f"Measured on {where}; other programs on the machine make it slower.",
        blocks=(_picture(rows), table(header, lines)),
        verdicts=(judge("scaling", ratio, shown=shown),),
        numbers={"machine": where, "load_average": os.getloadavg()[0], "sizes": rows},
    )


def _ns_per_day(seconds: float, timestep: float) -> float:
    return 86400 / seconds * timestep * 1e-6


def measure(context: Context, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Run the worker, and return its results for each size.

    Raises:
        RuntimeError: it ended before the first size.
    """
    threads = context.config.threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.extxyz")
        base_cell(context).write(path)
        settings = {
            "model": str(context.config.model),
            "device": context.device,
            "dtype": context.dtype,
            "threads": threads,
            "sample": str(path),
            "sizes": sizes,
        }
        limits = dict.fromkeys(THREADS, str(threads))
        command = [sys.executable, "-m", "tesseral.report.sections.speed_worker"]
        try:
            done = subprocess.run(
                [*command, json.dumps(settings)],
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                env={**os.environ, "GOMP_SPINCOUNT": "1000", **limits},
            )
            output, error = done.stdout, done.stderr
        except subprocess.TimeoutExpired as stop:
            kept = stop.stdout or b""
            output = kept.decode() if isinstance(kept, bytes) else kept
            error = f"it took longer than {TIME_LIMIT:g} s"
    rows: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines() if line]
    if not rows:
        last = (error.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the process that measures time and memory failed: {last}")
    return rows


def base_cell(context: Context) -> Atoms:
    """A cell to repeat to any size: the crystal, the molecule in a box, or a structure."""
    if context.sound_crystals:
        atoms: Atoms = context.sound_crystals[0].atoms.copy()
    else:
        atoms = context.sample.copy()
        if not atoms.pbc.all():
            atoms.pbc = False
            atoms.center(vacuum=SPACING / 2)
            atoms.pbc = True
    atoms.calc = None
    clean = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return clean


def _picture(rows: list[dict[str, Any]]) -> Any:
    figure, axes = panels(1, 2, width=8.0, height=2.6)
    atoms = [row["atoms"] for row in rows]
    for axis, values, color, label in (
        (axes[0, 0], [row["us_per_atom"] for row in rows], BLUE, "time per atom (µs)"),
        (axes[0, 1], [row["peak_mb"] for row in rows], ORANGE, "memory (MB)"),
    ):
        axis.plot(atoms, values, "-o", ms=4, color=color)
        axis.set(xscale="log", ylim=(0, 1.15 * max(values)))
        axis.set_xticks(atoms, [f"{number:,}" for number in atoms])
        axis.minorticks_off()
        finish(axis, "", "number of atoms", label)
    return picture(figure, "time and memory", "Time per atom and step; memory above the start.")
