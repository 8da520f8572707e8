"""Stability of a long hot NVT run, measured by the closest pair of atoms.

    python -m benchmarks.stability MODEL STRUCTURE --temperature 1000 --time 100 [--timestep 1]
                                   [--repeat 2 2 2] [--output runs/stability]

Langevin thermostat, friction 1/50 fs. The exit status is 1 if the run diverges or a pair comes
closer than 60% of the sum of its covalent radii.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ase import Atoms
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from benchmarks.machine import machine
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.dynamics import HotRun, Unstable, hot_run
from tesseral.data.sources.opening import read_last_frame

LIMIT = 0.6  # fraction of the sum of the covalent radii


def watched_run(atoms: Atoms, options: argparse.Namespace, console: Console) -> HotRun:
    """Run with a progress display."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("NVT", total=round(1000 * options.time / options.timestep))
        return hot_run(
            atoms,
            temperature=options.temperature,
            time=options.time,
            timestep=options.timestep,
            every=options.every,
            seed=options.seed,
            show=lambda step: bar.update(
                task, completed=step.number, description=f"NVT {step.temperature:5.0f} K"
            ),
        )


def plot(run: HotRun, path: Path, title: str) -> None:
    """Plot temperature, potential energy and the closest pair against time."""
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    energy = 1000 * (run.record.potential - run.record.potential[0])
    for axes, values, label in (
        (panels[0], run.record.temperature, "temperature (K)"),
        (panels[1], energy, "potential energy\n− start (meV/atom)"),
        (panels[2], 100 * run.closest, "closest pair, % of\nsum of covalent radii"),
    ):
        axes.plot(run.record.time, values, linewidth=0.6, color="#2563a8")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[2].axhline(100 * LIMIT, color="#d9722b", linewidth=1.0)
    panels[2].set_xlabel("time (ps)")
    panels[0].set_title(title, fontsize=10)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Run, print, plot; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("structure", type=Path, help="structure file; its last frame is used")
    parser.add_argument("--temperature", type=float, default=1000.0, help="in K (%(default)s)")
    parser.add_argument("--time", type=float, default=100.0, help="duration in ps (%(default)s)")
    parser.add_argument("--timestep", type=float, default=1.0, help="in fs (%(default)s)")
    parser.add_argument("--every", type=int, default=5, help="steps between records (%(default)s)")
    parser.add_argument("--repeat", type=int, nargs=3, default=(1, 1, 1))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/stability"))
    options = parser.parse_args()
    console = Console()
    atoms = read_last_frame(options.structure) * options.repeat
    name = f"{options.model.stem}_{atoms.get_chemical_formula()}_{options.temperature:g}K"
    atoms.calc = TesseralCalculator(options.model)
    try:
        run = watched_run(atoms, options, console)
    except Unstable as error:
        console.print(str(error), highlight=False)
        return 1
    closest = float(run.closest.min())
    late = run.record.temperature[len(run.record.time) // 2 :]
    result = {
        "model": str(options.model),
        "structure": str(options.structure),
        "atoms": len(atoms),
        "timestep_fs": options.timestep,
        "reached_ps": float(run.record.time[-1]),
        "mean_temperature_K": float(late.mean()),
        "closest_pair": closest,
        "machine": machine(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot(run, path.with_suffix(".png"), f"{name}, {options.timestep:g} fs")
    console.print(
        f"{len(atoms)} atoms, {result['reached_ps']:.1f} of {options.time:g} ps at "
        f"{result['mean_temperature_K']:.0f} K; closest pair {100 * closest:.0f}% of the sum of "
        "the covalent radii",
        highlight=False,
    )
    console.print(f"written: {path}, {path.with_suffix('.png')}", highlight=False, soft_wrap=True)
    return 0 if closest >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
