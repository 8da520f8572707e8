"""Relax a structure: positions, and the cell where it is periodic.

python -m tesseral.md_examples.relax structure.cif model.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory
from rich.console import Console

from tesseral.calculators.properties.atoms import copy_atoms, largest_force, pressure_gpa
from tesseral.calculators.properties.relaxation import OPTIMIZERS, relaxing
from tesseral.calculators.simulations.frames import with_suffix
from tesseral.md_examples.common import (
    load_atoms,
    make_parser,
    output_prefix,
    plot_panels,
    run_example,
)
from tesseral.process import ctrl_c
from tesseral.screen import print_table, progress_bar


class State(NamedTuple):
    """What is reported of a structure."""

    energy: float  # eV/atom
    pressure: float  # GPa; NaN without a periodic cell
    max_force: float  # eV/Å
    cell: tuple[float, ...]  # three lengths in Å, three angles in degrees


class Relaxation(NamedTuple):
    """Result of a relaxation."""

    atoms: Atoms
    start: State
    end: State
    steps: int
    converged: bool


def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    fixed_cell: bool = False,
    optimizer: str = "bfgs",
    prefix: Path | None = None,
    console: Console | None = None,
) -> Relaxation:
    """Relax a copy of ``atoms`` with their calculator.

    Args:
        atoms: not changed.
        fmax: eV/Å, largest force (and cell force) of a relaxed structure.
        steps: at most so many.
        fixed_cell: positions only; the cell moves in periodic directions only in any case.
        optimizer: ``bfgs``, ``lbfgs`` for many atoms, or ``fire`` for rough starts.
        prefix: start of the ``.traj``, ``.extxyz`` and ``.png`` files; none if not given.
        console: shows a progress bar if given.

    Raises:
        ValueError: fmax or steps that are not positive, or an unknown optimizer.
    """
    atoms = copy_atoms(atoms)
    run = relaxing(atoms, fmax=fmax, steps=steps, fixed_cell=fixed_cell, optimizer=optimizer)
    start = describe_state(atoms)
    trajectory = None if prefix is None else Trajectory(with_suffix(prefix, ".traj"), "w", atoms)
    history: list[tuple[float, float]] = []
    converged = False
    try:
        with progress_bar(console) as progress, ctrl_c() as check:
            task = progress.add_task("relax", total=steps)
            for step in run:
                converged = step.converged
                history.append((step.energy, step.max_force))
                if trajectory is not None:
                    trajectory.write()
                text = f"relax, largest force {step.max_force:.4f} eV/Å"
                progress.update(task, completed=step.number, description=text)
                check()
            if converged:
                progress.update(task, total=len(history) - 1)
    finally:
        if trajectory is not None:
            trajectory.close()
        if prefix is not None:
            _write(atoms, history, prefix)
    return Relaxation(atoms, start, describe_state(atoms), len(history) - 1, converged)


def describe_state(atoms: Atoms) -> State:
    """Energy, pressure, largest force and cell of ``atoms``."""
    return State(
        energy=float(atoms.get_potential_energy()) / len(atoms),
        pressure=pressure_gpa(atoms),
        max_force=largest_force(atoms),
        cell=tuple(float(value) for value in atoms.cell.cellpar()),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = make_parser("Relax positions and cell of a structure.", "relax")
    parser.add_argument("--fmax", type=float, default=0.01, help="eV/Å (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="at most so many (%(default)s)")
    parser.add_argument("--fixed-cell", action="store_true", help="relax the positions only")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="bfgs")
    arguments = parser.parse_args(argv)

    def run(console: Console) -> None:
        atoms = load_atoms(arguments)
        prefix = output_prefix(arguments, "relax")
        result = relax(
            atoms,
            fmax=arguments.fmax,
            steps=arguments.steps,
            fixed_cell=arguments.fixed_cell,
            optimizer=arguments.optimizer,
            prefix=prefix,
            console=console,
        )
        _report(console, result)
        console.print(f"wrote {prefix}.extxyz, {prefix}.traj, {prefix}.png")

    return run_example(run)


def _report(console: Console, result: Relaxation) -> None:
    both = (result.start, result.end)
    rows = [
        ("energy (eV/atom)", *(f"{state.energy:.5f}" for state in both)),
        ("largest force (eV/Å)", *(f"{state.max_force:.4f}" for state in both)),
        ("pressure (GPa)", *(f"{state.pressure:.3f}" for state in both)),
        ("cell lengths (Å)", *("  ".join(f"{x:.4f}" for x in state.cell[:3]) for state in both)),
        ("cell angles (°)", *("  ".join(f"{x:.2f}" for x in state.cell[3:]) for state in both)),
    ]
    print_table(console, ("", "start", "end"), rows)
    console.print(
        f"converged after {result.steps} steps"
        if result.converged
        else f"not converged after {result.steps} steps; raise --steps"
    )


def _write(atoms: Atoms, history: list[tuple[float, float]], prefix: Path) -> None:
    """The relaxed structure and the course of the relaxation."""
    ase.io.write(with_suffix(prefix, ".extxyz"), atoms)
    if history:
        energies, forces = np.array(history).T
        panels = {
            "energy − end (meV/atom)": {"E": 1000 * (energies - energies[-1])},
            "lg largest force (eV/Å)": {"F": np.log10(np.maximum(forces, 1e-12))},
        }
        plot_panels(with_suffix(prefix, ".png"), np.arange(len(history)), "step", panels)


if __name__ == "__main__":
    sys.exit(main())
