"""The molecular dynamics loop of the examples: recording, progress, stop rule."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory
from rich.console import Console

from tesseral.calculators.properties.dynamics import Record, record_of, simulate
from tesseral.calculators.simulations.dynamics import HEADER
from tesseral.calculators.simulations.frames import with_suffix
from tesseral.md_examples.common import plot_panels
from tesseral.process import ctrl_c
from tesseral.screen import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every MD example."""
    add = parser.add_argument
    add("--temperature", type=float, default=300.0, help="K (%(default)s)")
    add("--time", type=float, default=2.0, help="ps (%(default)s)")
    add("--timestep", type=float, default=1.0, help="fs (%(default)s)")
    add("--every", type=int, default=10, help="steps between records (%(default)s)")
    add("--seed", type=int, default=0, help="of the random velocities (%(default)s)")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_arguments` has read, as keyword arguments of the examples' functions."""
    names = ("temperature", "time", "timestep", "every", "seed")
    return {name: getattr(arguments, name) for name in names}


def run_dynamics(
    atoms: Atoms,
    dynamics: Any,
    *,
    steps: int,
    timestep: float,
    temperature: float,
    every: int = 10,
    prefix: Path | None = None,
    console: Console | None = None,
    title: str = "MD",
    plot: Callable[[Record, Path], None] | None = None,
) -> Record:
    """Run ``dynamics`` and record it; what was recorded is written, however the run ends.

    Args:
        atoms: what ``dynamics`` moves.
        dynamics: an ASE integrator.
        steps: number of steps.
        timestep: fs.
        temperature: K, expected; ten times as hot (and at least 3000 K) stops the run.
        every: steps between records.
        prefix: start of the ``.traj`` and ``.csv`` files; nothing is written if not given.
        console: shows a progress bar if given.
        title: of the progress bar.
        plot: writes a figure of the record.

    Raises:
        ValueError: ``every`` is less than 1.
        Unstable: forces are not finite, atoms overlap, or the temperature explodes.
        KeyboardInterrupt: after the files have been written.
    """
    rows: list[tuple[float, ...]] = []
    trajectory = None if prefix is None else Trajectory(with_suffix(prefix, ".traj"), "w", atoms)
    run = simulate(
        atoms, dynamics, steps=steps, timestep=timestep, temperature=temperature, every=every
    )
    try:
        with progress_bar(console) as progress, ctrl_c() as check:
            task = progress.add_task(title, total=steps)
            for step in run:
                if step.row is not None:
                    rows.append(step.row)
                    if trajectory is not None:
                        trajectory.write()
                text = f"{title} {step.temperature:5.0f} K"
                progress.update(task, completed=step.number, description=text)
                check()
    finally:
        if trajectory is not None:
            trajectory.close()
        record = record_of(rows)
        if prefix is not None and rows:
            _write_csv(with_suffix(prefix, ".csv"), record)
            if plot is not None:
                plot(record, with_suffix(prefix, ".png"))
    return record


def plot_record(record: Record, path: Path) -> None:
    """Temperature, energies, and volume and pressure where there are any, against time."""
    start = record.total[0]
    panels = {
        "temperature (K)": {"T": record.temperature},
        "energy − start (meV/atom)": {
            "potential": 1000 * (record.potential - record.potential[0]),
            "kinetic": 1000 * (record.kinetic - record.kinetic[0]),
            "total": 1000 * (record.total - start),
        },
    }
    if np.ptp(record.volume) > 0:
        panels["volume (Å³/atom)"] = {"V": record.volume}
        panels["pressure (GPa)"] = {"P": record.pressure}
    plot_panels(path, record.time, "time (ps)", panels)


def _write_csv(path: Path, record: Record) -> None:
    np.savetxt(path, np.array(record).T, "%.9g", ",", header=",".join(HEADER), comments="")
