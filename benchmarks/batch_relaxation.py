"""Relaxation of 200 small crystals in one torch-sim batch, and one by one with FIRE of ASE.

python -m benchmarks.batch_relaxation quickstart/model.safetensors
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.filters import UnitCellFilter
from ase.optimize import FIRE
from rich.console import Console

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.torchsim import TesseralModel
from tesseral.md_examples.batch_relaxation import relax_batch
from tesseral.process import keep_freed_memory
from tesseral.screen import print_table


def crystal(seed: int) -> Atoms:
    """SiC cells of 8 atoms, strained by about 2% and rattled by 0.1 Å."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    strain = np.random.default_rng(seed).normal(0, 0.02, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def relax_alone(atoms: Atoms, calculator: TesseralCalculator, fmax: float, fixed: bool) -> int:
    """Relax in place with ASE; returns the number of steps."""
    atoms.calc = calculator
    method = FIRE(atoms if fixed else UnitCellFilter(atoms), logfile=None)
    method.run(fmax=fmax, steps=500)
    return int(method.nsteps)


def compare(
    path: Path, number: int, fmax: float, fixed: bool, dtype: str | None
) -> list[tuple[str, str]]:
    """Relax the same crystals both ways; returns the rows of the table."""
    model = TesseralModel(path, dtype=dtype)
    calculator = TesseralCalculator(path, dtype=dtype)
    crystals = [crystal(seed) for seed in range(number)]
    list(relax_batch(crystals[:2], model, fmax=fmax, steps=2))  # warm-up
    wall, busy = time.perf_counter(), time.process_time()
    batch = sorted(
        relax_batch(crystals, model, fmax=fmax, fixed_cell=fixed), key=lambda done: done.number
    )
    wall_batch, busy_batch = time.perf_counter() - wall, time.process_time() - busy
    wall, busy = time.perf_counter(), time.process_time()
    steps = [relax_alone(atoms, calculator, fmax, fixed) for atoms in crystals]
    wall_alone, busy_alone = time.perf_counter() - wall, time.process_time() - busy
    pairs = list(zip(batch, crystals, strict=True))
    energies = [abs(a.end - b.get_potential_energy()) / len(b) for a, b in pairs]
    forces = [np.abs(a.atoms.get_forces() - b.get_forces()).max() for a, b in pairs]
    return [
        ("batch, wall and CPU s", f"{wall_batch:.1f}, {busy_batch:.1f}"),
        ("one by one, wall and CPU s", f"{wall_alone:.1f}, {busy_alone:.1f}"),
        ("ratio", f"{wall_alone / wall_batch:.2f}, {busy_alone / busy_batch:.2f}"),
        ("steps, batch and one by one", f"{sum(a.steps for a in batch)}, {sum(steps)}"),
        (
            "other number of steps",
            str(sum(a.steps != b for a, b in zip(batch, steps, strict=True))),
        ),
        ("converged in the batch", str(sum(a.outcome == "converged" for a in batch))),
        (
            "searches, batch and one by one",
            f"{model.neighbors.builds}, {calculator.neighbors.builds}",
        ),
        ("largest difference of energy, meV/atom", f"{1000 * max(energies):.2e}"),
        ("largest difference of forces, eV/Å", f"{max(forces):.2e}"),
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="model file with Si and C")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument(
        "--fmax", type=float, default=0.02, help="eV/Å, maximum force (%(default)s)"
    )
    parser.add_argument("--fixed-cell", action="store_true")
    parser.add_argument("--dtype", choices=("float32", "float64"))
    options = parser.parse_args()
    keep_freed_memory()
    rows = compare(options.model, options.number, options.fmax, options.fixed_cell, options.dtype)
    print_table(Console(), ("crystals", str(options.number)), rows)


if __name__ == "__main__":
    main()
