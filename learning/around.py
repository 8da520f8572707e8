"""Structures around those of a dataset: short dynamics at the temperature of their forces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed

from tesseral.calculators.properties.atoms import is_bulk
from tesseral.calculators.properties.dynamics import Unstable, simulate
from tesseral.calculators.properties.ensembles import SOON, langevin, start
from tesseral.calculators.simulations.uncertainty import limit_of, strange_atoms
from tesseral.learning.explore import strained

LOWEST, HIGHEST = 300.0, 10_000.0  # K
BETWEEN = 20  # steps between two structures of a run, about a period of the fastest vibrations
STARTS = 3  # of a run that leaves what the model knows
STRAIN = 0.02  # largest, of cells of bulk matter
RATTLE = 0.05  # Å, standard deviation of displacements
PROBES, STEP = 4, 0.01  # random directions, and the displacement (Å), for the curvature


def configurational_temperature(atoms: Atoms, rng: np.random.Generator) -> float:
    """Temperature (K) at which forces as large as these are usual, by the curvature of the energy.

    In a canonical ensemble the mean square of the forces is kT times the mean Laplacian of the
    energy (Butler et al., J. Chem. Phys. 109, 6519, 1998). The Laplacian is estimated from
    differences of forces along random directions. 0 where it is not positive.
    """
    trial = atoms.copy()
    trial.calc = atoms.calc
    squared = float(np.square(atoms.get_forces()).sum())
    curvatures = []
    for _ in range(PROBES):
        direction = rng.choice([-1.0, 1.0], size=atoms.positions.shape)
        ends = []
        for sign in (1, -1):
            trial.positions = atoms.positions + sign * STEP * direction
            ends.append(trial.get_forces())
        curvatures.append(-float(((ends[0] - ends[1]) * direction).sum()) / (2 * STEP))
    curvature = float(np.mean(curvatures))
    return squared / curvature / units.kB if curvature > 0 else 0.0


def around(
    atoms: Atoms,
    copies: int,
    timestep: float,
    rng: np.random.Generator,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Atoms]:
    """Structures near this one, as its calculator moves it.

    Args:
        atoms: structure, with the calculator of a model.
        copies: number of structures.
        timestep: time step of the dynamics (fs).
        rng: random numbers of velocities, thermostat and strains.
        check: called after each step.

    Yields:
        ``copies`` structures, those of bulk matter with strained cells. They are ``BETWEEN`` steps
        apart; where the dynamics leave what the model knows, rattled copies take their place.
    """
    try:
        temperature = configurational_temperature(atoms, rng)
    except (ValueError, CalculationFailed):  # as of atoms that overlap
        temperature = LOWEST
    temperature = min(max(temperature, LOWEST), HIGHEST)
    limit, bulk, found = limit_of(atoms.calc, None), is_bulk(atoms), 0
    for _ in range(STARTS if len(atoms) > 1 else 0):  # one atom in a cell feels no force
        moving, noise = start(atoms, temperature, int(rng.integers(2**31)))
        integrator = langevin(moving, timestep, temperature, SOON, noise)
        try:
            for step in simulate(
                moving,
                integrator,
                steps=BETWEEN * (copies - found),
                timestep=timestep,
                temperature=temperature,
                every=BETWEEN,
            ):
                check()
                if step.row is None or not step.number:
                    continue
                if strange_atoms(moving, limit):
                    break
                found += 1
                yield strained(moving, STRAIN, rng) if bulk else moving.copy()
        except (Unstable, ValueError, CalculationFailed):
            pass  # the structures before that remain
        if found >= copies:
            return
    for _ in range(copies - found):
        rattled = atoms.copy()
        rattled.positions += rng.normal(scale=RATTLE, size=atoms.positions.shape)
        yield strained(rattled, STRAIN, rng) if bulk else rattled
