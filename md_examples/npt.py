"""Molecular dynamics at constant temperature and pressure: density and thermal expansion.

python -m tesseral.md_examples.npt structure.cif model.safetensors --temperature 600 --pressure 0
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from rich.console import Console

from tesseral.calculators.properties.dynamics import Record
from tesseral.calculators.properties.ensembles import isobaric, start, steps_of
from tesseral.md_examples.common import load_atoms, make_parser, output_prefix, run_example
from tesseral.md_examples.dynamics import (
    add_arguments,
    plot_record,
    run_dynamics,
    settings,
)
from tesseral.screen import print_table


class Isobaric(NamedTuple):
    """Result of a run at constant pressure; averages over its second half."""

    record: Record
    temperature: float  # K
    pressure: float  # GPa
    volume: float  # Å³/atom
    scale: float  # cube root of the mean volume over the first: change of the lengths


def npt(
    atoms: Atoms,
    *,
    temperature: float = 300.0,
    pressure: float = 0.0,
    time: float = 5.0,
    timestep: float = 1.0,
    damping: float = 100.0,
    pressure_damping: float = 1000.0,
    every: int = 10,
    seed: int = 0,
    prefix: Path | None = None,
    console: Console | None = None,
) -> Isobaric:
    """Run a copy of ``atoms`` at constant temperature and pressure; the cell keeps its shape.

    Martyna–Tobias–Klein equations with Nosé–Hoover chains, as ASE has them.

    Args:
        atoms: periodic in three directions, with a calculator; not changed.
        temperature: K.
        pressure: GPa.
        time: ps.
        timestep: fs.
        damping: fs, of the temperature.
        pressure_damping: fs, of the pressure.
        every: steps between records.
        seed: of the velocities.
        prefix: start of the ``.traj``, ``.csv`` and ``.png`` files; none if not given.
        console: shows a progress bar if given.

    Raises:
        ValueError: atoms that are not periodic in three directions or have constraints, values
            that are not positive.
        Unstable: the run explodes.
    """
    steps = steps_of(time, timestep)
    atoms, _ = start(atoms, temperature, seed)
    dynamics = isobaric(
        atoms,
        timestep,
        temperature,
        pressure=pressure,
        damping=damping,
        pressure_damping=pressure_damping,
    )
    first_volume = atoms.get_volume() / len(atoms)
    record = run_dynamics(
        atoms,
        dynamics,
        steps=steps,
        timestep=timestep,
        temperature=temperature,
        every=every,
        prefix=prefix,
        console=console,
        title="NPT",
        plot=plot_record,
    )
    late = slice(len(record.time) // 2, None)
    volume = float(record.volume[late].mean())
    return Isobaric(
        record,
        temperature=float(record.temperature[late].mean()),
        pressure=float(record.pressure[late].mean()),
        volume=volume,
        scale=float((volume / first_volume) ** (1 / 3)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = make_parser("Molecular dynamics at constant temperature and pressure.", "npt")
    add_arguments(parser)
    add = parser.add_argument
    add("--pressure", type=float, default=0.0, help="GPa (%(default)s)")
    add("--damping", type=float, default=100.0, help="fs, of the temperature (%(default)s)")
    add("--pressure-damping", type=float, default=1000.0, help="fs, of the pressure (%(default)s)")
    arguments = parser.parse_args(argv)

    def run(console: Console) -> None:
        atoms = load_atoms(arguments)
        prefix = output_prefix(arguments, "npt")
        result = npt(
            atoms,
            **settings(arguments),
            pressure=arguments.pressure,
            damping=arguments.damping,
            pressure_damping=arguments.pressure_damping,
            prefix=prefix,
            console=console,
        )
        rows = [
            ("atoms", str(len(atoms))),
            ("temperature (K)", f"{result.temperature:.1f}"),
            ("pressure (GPa)", f"{result.pressure:.3f}"),
            ("volume (Å³/atom)", f"{result.volume:.4f}"),
            ("lengths against the start", f"{100 * (result.scale - 1):+.3f} %"),
        ]
        print_table(console, ("means of the second half", ""), rows)
        console.print(f"wrote {prefix}.traj, {prefix}.csv, {prefix}.png")

    return run_example(run)


if __name__ == "__main__":
    sys.exit(main())
