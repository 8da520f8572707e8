"""Does a long hot run hold? NVT with a watch on the closest pair of atoms.

    python -m benchmarks.stability MODEL STRUCTURE --temperature 1000 --time 100 [--timestep 1]
                                   [--repeat 2 2 2] [--output runs/stability]

Langevin thermostat, friction 1/50 fs. The exit status is 1 if the run explodes or a pair comes
closer than 60% of the sum of its covalent radii.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from benchmarks.machine import machine
from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.atoms import closest_approach, thermalize
from tesseral.calculators.properties.dynamics import HotRun, Unstable, record_of, simulate

LIMIT = 0.6  # of the sum of the covalent radii


def watched_run(atoms: Atoms, options: argparse.Namespace, console: Console) -> tuple[HotRun, str]:
    """The run as far as it went, and why it ended early, if it did."""
    rng = np.random.default_rng(options.seed)
    thermalize(atoms, options.temperature, rng)
    langevin = Langevin(
        atoms,
        options.timestep * units.fs,
        temperature_K=options.temperature,
        friction=1 / (50 * units.fs),
        rng=rng,
        fixcm=False,
    )
    steps = round(1000 * options.time / options.timestep)
    rows, closest, trouble = [], [], ""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("NVT", total=steps)
        run = simulate(
            atoms,
            langevin,
            steps=steps,
            timestep=options.timestep,
            temperature=options.temperature,
            every=options.every,
        )
        try:
            for step in run:
                if step.row is not None:
                    rows.append(step.row)
                    closest.append(closest_approach(atoms))
                    text = f"NVT {step.temperature:5.0f} K, closest {100 * closest[-1]:.0f}%"
                    bar.update(task, completed=step.number, description=text)
        except Unstable as error:
            trouble = str(error)
    return HotRun(record_of(rows), np.array(closest)), trouble


def plot(run: HotRun, path: Path, title: str) -> None:
    """Temperature, potential energy and the closest pair against time."""
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
    parser.add_argument("structure", type=Path, help="the last of the file is taken")
    parser.add_argument("--temperature", type=float, default=1000.0, help="K (%(default)s)")
    parser.add_argument("--time", type=float, default=100.0, help="ps (%(default)s)")
    parser.add_argument("--timestep", type=float, default=1.0, help="fs (%(default)s)")
    parser.add_argument("--every", type=int, default=5, help="steps between looks (%(default)s)")
    parser.add_argument("--repeat", type=int, nargs=3, default=(1, 1, 1))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/stability"))
    options = parser.parse_args()
    console = Console()
    atoms = ase.io.read(options.structure, index=-1) * options.repeat
    name = f"{options.model.stem}_{atoms.get_chemical_formula()}_{options.temperature:g}K"
    atoms.calc = TesseralCalculator(options.model)
    run, trouble = watched_run(atoms, options, console)
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
        "trouble": trouble,
        "machine": machine(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot(run, path.with_suffix(".png"), f"{name}, {options.timestep:g} fs")
    console.print(
        f"{len(atoms)} atoms, {result['reached_ps']:.1f} of {options.time:g} ps at "
        f"{result['mean_temperature_K']:.0f} K; closest pair {100 * closest:.0f}% of the sum of "
        f"the covalent radii {trouble}",
        highlight=False,
    )
    console.print(f"written: {path}, {path.with_suffix('.png')}", highlight=False, soft_wrap=True)
    return 1 if trouble or closest < LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
