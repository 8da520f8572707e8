"""Molecular dynamics at constant temperature.

python -m tesseral.md_examples.nvt structure.cif model.safetensors --temperature 600 --time 5
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from rich.console import Console

from tesseral.calculators.properties.dynamics import Record
from tesseral.calculators.properties.ensembles import canonical, start, steps_of
from tesseral.md_examples.common import load_atoms, make_parser, output_prefix, run_example
from tesseral.md_examples.dynamics import (
    add_arguments,
    plot_record,
    run_dynamics,
    settings,
)
from tesseral.screen import print_table


class Canonical(NamedTuple):
    """Result of a run at constant temperature; averages over its second half."""

    record: Record
    temperature: float  # K, mean
    temperature_std: float  # K; sqrt(2 / 3N) of the mean in the canonical ensemble
    energy: float  # eV/atom, mean potential energy


def nvt(
    atoms: Atoms,
    *,
    temperature: float = 300.0,
    time: float = 2.0,
    timestep: float = 1.0,
    thermostat: str = "bussi",
    damping: float = 100.0,
    every: int = 10,
    seed: int = 0,
    prefix: Path | None = None,
    console: Console | None = None,
) -> Canonical:
    """Run a copy of ``atoms`` at constant temperature.

    Args:
        atoms: with a calculator; not changed.
        temperature: K.
        time: ps.
        timestep: fs.
        thermostat: ``bussi`` (velocity rescaling, keeps the dynamics) or ``langevin`` (couples
            every atom, reaches equilibrium faster).
        damping: fs, time in which the temperature is brought back.
        every: steps between records.
        seed: of the velocities.
        prefix: start of the ``.traj``, ``.csv`` and ``.png`` files; none if not given.
        console: shows a progress bar if given.

    Raises:
        ValueError: an unknown thermostat, or values that are not positive.
        Unstable: the run explodes.
    """
    steps = steps_of(time, timestep)
    atoms, rng = start(atoms, temperature, seed)
    record = run_dynamics(
        atoms,
        canonical(atoms, timestep, temperature, rng, thermostat=thermostat, damping=damping),
        steps=steps,
        timestep=timestep,
        temperature=temperature,
        every=every,
        prefix=prefix,
        console=console,
        title="NVT",
        plot=plot_record,
    )
    late = slice(len(record.time) // 2, None)
    return Canonical(
        record,
        temperature=float(record.temperature[late].mean()),
        temperature_std=float(record.temperature[late].std()),
        energy=float(record.potential[late].mean()),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = make_parser("Molecular dynamics at constant temperature.", "nvt")
    add_arguments(parser)
    parser.add_argument(
        "--thermostat", choices=("bussi", "langevin"), default="bussi", help="(%(default)s)"
    )
    parser.add_argument(
        "--damping", type=float, default=100.0, help="fs, of the temperature (%(default)s)"
    )
    arguments = parser.parse_args(argv)

    def run(console: Console) -> None:
        atoms = load_atoms(arguments)
        prefix = output_prefix(arguments, "nvt")
        result = nvt(
            atoms,
            **settings(arguments),
            thermostat=arguments.thermostat,
            damping=arguments.damping,
            prefix=prefix,
            console=console,
        )
        expected = arguments.temperature * (2 / (3 * len(atoms))) ** 0.5
        rows = [
            ("atoms", str(len(atoms))),
            ("mean temperature (K)", f"{result.temperature:.1f}"),
            ("its fluctuation (K)", f"{result.temperature_std:.1f}, canonical {expected:.1f}"),
            ("mean potential energy (eV/atom)", f"{result.energy:.5f}"),
        ]
        print_table(console, ("second half of the run", ""), rows)
        console.print(f"wrote {prefix}.traj, {prefix}.csv, {prefix}.png")

    return run_example(run)


if __name__ == "__main__":
    sys.exit(main())
