"""Tasks for all calculators: energy, forces and stress of warm silicon, errors on a test set.

Needs only NumPy and ASE, so that it runs in the environment of any calculator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import read

from benchmarks.serve import Task

LATTICE = 5.43  # Å
NOISE = 0.05  # Å, standard deviation of each coordinate
FARTHEST = 0.24  # Å; noise beyond it (1 atom in 100,000) is shortened, as a skin of 0.5 Å allows


def supercell(n_atoms: int) -> Atoms:
    """Perfect diamond silicon with 8 n³ atoms.

    Raises:
        ValueError: the number of atoms does not have this form.
    """
    n = round((n_atoms / 8) ** (1 / 3))
    if n < 1 or 8 * n**3 != n_atoms:
        raise ValueError(
            f"{n_atoms} atoms are not a cubic supercell of diamond; use 8 n³, such as "
            f"{8 * max(n, 1) ** 3} or {8 * (n + 1) ** 3}"
        )
    atoms: Atoms = bulk("Si", "diamond", a=LATTICE, cubic=True).repeat(n)
    return atoms


def noise(n_atoms: int, generator: np.random.Generator) -> np.ndarray:
    """Displacements (n_atoms, 3) Å of warm atoms."""
    moved = generator.normal(scale=NOISE, size=(n_atoms, 3))
    length = np.sqrt((moved * moved).sum(axis=1, keepdims=True))
    shortened: np.ndarray = moved * np.minimum(1.0, FARTHEST / length)
    return shortened


def test_errors(calculator: Callable[[], Any], file: str) -> dict[str, float]:
    """MAE of energies (meV/atom), force components (meV/Å) and stress components (GPa).

    Args:
        calculator: function that returns the calculator of a structure.
        file: structures with labels.
    """
    energy, forces, stress = [], [], []
    for frame in read(file, ":"):
        atoms = frame.copy()
        atoms.calc = calculator()
        labels = frame.calc.results
        energy.append(abs(atoms.get_potential_energy() - labels["energy"]) / len(atoms))
        forces.append(np.abs(atoms.get_forces() - labels["forces"]).ravel())
        stress.append(np.abs(atoms.get_stress() - labels["stress"]) / units.GPa)
    return {
        "energy": 1e3 * float(np.mean(energy)),
        "forces": 1e3 * float(np.concatenate(forces).mean()),
        "stress": float(np.mean(stress)),
    }


class SiliconSteps:
    """Steps as in molecular dynamics: the same atoms at new positions with one calculator.

    Attributes:
        info: description of the calculator: ``parameters`` and ``dtype``.
    """

    def __init__(self, calculator: Any, **info: Any) -> None:
        """Take an ASE calculator and its description."""
        self.calculator = calculator
        self.info = info
        self.atoms = Atoms()
        self.lattice = np.empty((0, 3))
        self.generator = np.random.default_rng(0)

    def step(self, n_atoms: int) -> Task:
        """Energy, forces and stress at new positions."""
        self.set_up(n_atoms)
        return self.move, self.compute

    def errors(self, file: str) -> Task:
        """Errors on the structures of a file."""
        return (lambda: None), lambda: test_errors(lambda: self.calculator, file)

    def set_up(self, n_atoms: int) -> None:
        """Make atoms if their number has changed."""
        if len(self.atoms) != n_atoms:
            self.atoms = supercell(n_atoms)
            self.lattice = self.atoms.positions.copy()
            self.atoms.calc = self.calculator

    def move(self) -> None:
        """Draw new positions around the lattice."""
        self.atoms.positions[:] = self.lattice + noise(len(self.atoms), self.generator)

    def compute(self) -> None:
        """Compute the properties needed in a step of molecular dynamics, and the stress."""
        energy = self.atoms.get_potential_energy()
        forces = self.atoms.get_forces()
        stress = self.atoms.get_stress()
        if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(stress).all()):
            raise ValueError("the results of the calculator are not finite")
