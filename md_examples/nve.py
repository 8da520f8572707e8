"""Molecular dynamics at constant energy: does the model conserve it?

python -m tesseral.md_examples.nve structure.cif model.safetensors --temperature 600 --time 2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from rich.console import Console

from tesseral.calculators.properties.dynamics import Drift, Record, drift_of
from tesseral.calculators.properties.ensembles import (
    SOON,
    langevin,
    microcanonical,
    start,
    steps_of,
)
from tesseral.md_examples.common import (
    load_atoms,
    make_parser,
    output_prefix,
    plot_panels,
    run_example,
)
from tesseral.md_examples.dynamics import (
    add_arguments,
    run_dynamics,
    settings,
)
from tesseral.screen import print_table


def nve(
    atoms: Atoms,
    *,
    temperature: float = 300.0,
    time: float = 2.0,
    timestep: float = 1.0,
    equilibrate: float = 0.2,
    every: int = 10,
    seed: int = 0,
    prefix: Path | None = None,
    console: Console | None = None,
) -> Drift:
    """Run a copy of ``atoms`` at constant energy after a short run with a thermostat.

    Args:
        atoms: with a calculator; not changed.
        temperature: K.
        time: ps.
        timestep: fs.
        equilibrate: ps with a Langevin thermostat before; 0 for none.
        every: steps between records.
        seed: of the velocities.
        prefix: start of the ``.traj``, ``.csv`` and ``.png`` files; none if not given.
        console: shows a progress bar if given.

    Raises:
        ValueError: times or a temperature that are not positive.
        Unstable: the run explodes.
    """
    if not equilibrate >= 0:
        raise ValueError(f"--equilibrate is {equilibrate} ps; it must be 0 or more")
    steps = steps_of(time, timestep)
    atoms, rng = start(atoms, temperature, seed)
    if equilibrate > 0:
        run_dynamics(
            atoms,
            langevin(atoms, timestep, temperature, SOON, rng),
            steps=steps_of(equilibrate, timestep),
            timestep=timestep,
            temperature=temperature,
            every=every,
            console=console,
            title="equilibrate",
        )
    record = run_dynamics(
        atoms,
        microcanonical(atoms, timestep),
        steps=steps,
        timestep=timestep,
        temperature=temperature,
        every=every,
        prefix=prefix,
        console=console,
        title="NVE",
        plot=plot_drift,
    )
    return drift_of(record)


def plot_drift(record: Record, path: Path) -> None:
    """Total energy with its fit, its two parts, and the temperature, against time."""
    total = 1000 * (record.total - record.total[0])
    lines = {"total": total}
    if len(total) > 2:
        lines["linear fit"] = np.polyval(np.polyfit(record.time, total, 1), record.time)
    panels = {
        "drift (meV/atom)": lines,
        "energy (meV/atom)": {
            "kinetic": 1000 * record.kinetic,
            "potential − lowest": 1000 * (record.potential - record.potential.min()),
        },
        "temperature (K)": {"T": record.temperature},
    }
    plot_panels(path, record.time, "time (ps)", panels)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = make_parser("Molecular dynamics at constant energy, with its drift.", "nve")
    add_arguments(parser)
    parser.add_argument(
        "--equilibrate", type=float, default=0.2, help="ps with a thermostat first (%(default)s)"
    )
    arguments = parser.parse_args(argv)

    def run(console: Console) -> None:
        atoms = load_atoms(arguments)
        prefix = output_prefix(arguments, "nve")
        result = nve(
            atoms,
            **settings(arguments),
            equilibrate=arguments.equilibrate,
            prefix=prefix,
            console=console,
        )
        rows = [
            ("atoms", str(len(atoms))),
            ("mean temperature (K)", f"{result.temperature:.1f}"),
            ("drift over the run (meV/atom)", f"{result.drift:+.4f}"),
            ("drift rate (meV/atom/ns)", f"{result.rate:+.2f}"),
            ("fluctuation of the total (meV/atom)", f"{result.fluctuation:.4f}"),
        ]
        print_table(console, ("", ""), rows)
        console.print(f"wrote {prefix}.traj, {prefix}.csv, {prefix}.png")

    return run_example(run)


if __name__ == "__main__":
    sys.exit(main())
