"""Structures among which a round selects: distorted and random ones, and molecular dynamics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

from tesseral.calculators.properties.atoms import closest_approach, is_bulk
from tesseral.calculators.properties.dynamics import Unstable, simulate
from tesseral.calculators.properties.ensembles import SOON, isobaric, langevin, start, steps_of
from tesseral.calculators.simulations.frames import write_frames
from tesseral.calculators.simulations.structures import Job
from tesseral.calculators.simulations.uncertainty import limit_of, strange_atoms
from tesseral.data.sources.opening import read_frames
from tesseral.files import make_folder
from tesseral.learning.config import ExploreConfig

TRIES = 200  # places for an atom; then the cell is enlarged
GROWTH = 1.02  # of the lengths of a cell that is too small for its atoms
STARTS = 20  # of the dynamics of a run, most of which end where the model is lost
BEYOND = 2.0  # times the largest expected force error of a start structure that is not known
APART = 0.8  # smallest distance at random places, as a fraction of the sum of covalent radii

Check = Callable[[], None]  # raises KeyboardInterrupt after Ctrl-C
Show = Callable[[str, float, float], None]  # name of a run, steps done, all steps


class Run(NamedTuple):
    """One source of structures of a round."""

    name: str  # of its file
    atoms: Atoms
    temperature: float = 0.0  # K; 0 for distorted and random structures
    pressure: float | None = None  # GPa; None at constant volume
    kind: str = "md"  # or distorted, random

    @property
    def config_type(self) -> str:
        """How the structures were made, stored with the labels."""
        if self.kind != "md":
            return self.kind
        pressure = "" if self.pressure is None else f"-{self.pressure:g}GPa"
        return f"md-{self.temperature:g}K{pressure}"


def runs_of(jobs: Sequence[Job], config: ExploreConfig, *, dynamics: bool) -> list[Run]:
    """The sources of structures of a round, from each start structure.

    Args:
        jobs: start structures.
        config: options.
        dynamics: whether there is a model for molecular dynamics.
    """
    runs = []
    for job in jobs:
        atoms = job.structure()
        runs += [
            Run(f"{job.name}-{kind}", atoms, kind=kind)
            for kind, count in (("distorted", config.distorted), ("random", config.random))
            if count
        ]
        pressures = config.pressures if is_bulk(atoms) and not atoms.constraints else []
        for temperature in config.temperatures if dynamics else []:
            for pressure in (None, *pressures):
                run = Run("", atoms, temperature, pressure)
                runs.append(run._replace(name=f"{job.name}-{run.config_type}"))
    return runs


def explore(
    runs: Sequence[Run],
    calculator: Calculator | None,
    config: ExploreConfig,
    folder: Path,
    *,
    seed: int,
    check: Check = lambda: None,
    show: Show = lambda name, done, total: None,
) -> Iterator[Atoms]:
    """The structures of all runs in turn; those of completed runs are read from their files.

    Args:
        runs: from `runs_of`.
        calculator: calculator of the model; None if there is none.
        config: options.
        folder: folder of the files, one for each run.
        seed: random seed of the round.
        check: called after each step.
        show: callback with the progress.

    Yields:
        Structures without overlapping atoms, with ``config_type`` and ``group`` (the run) in
        ``info``.

    Raises:
        KeyboardInterrupt: raised by ``check``.
    """
    make_folder(folder)
    limit = None if calculator is None else limit_of(calculator, config.stop_uncertainty)
    for number, run in enumerate(runs):
        path = folder / f"{run.name}.extxyz"
        if not path.exists():
            rng = np.random.default_rng([config.seed, seed, number])
            if run.kind == "md":
                assert calculator is not None
                made: Iterator[Atoms] = _dynamics(run, calculator, limit, config, rng, check, show)
            elif run.kind == "distorted":
                made = distorted(run.atoms, config.distorted, config.strain, config.rattle, rng)
            else:
                made = (at_random(run.atoms, rng) for _ in range(config.random))
            write_frames(path, (_noted(frame, run) for frame in made))
        check()
        if path.stat().st_size:
            for frame in read_frames(path):
                if closest_approach(frame) >= config.closest:
                    yield frame


def _noted(atoms: Atoms, run: Run) -> Atoms:
    """A copy without calculator, which says where it comes from."""
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.info = {"config_type": run.config_type, "group": run.name}
    return frame


def distorted(
    atoms: Atoms, count: int, strain: float, rattle: float, rng: np.random.Generator
) -> Iterator[Atoms]:
    """Strained and rattled copies; the amplitudes are drawn up to the largest.

    Only bulk is strained: a cell with vacuum is not a property of the material.

    Args:
        atoms: the structure.
        count: number of copies.
        strain: largest component of the strain.
        rattle: largest root mean square displacement (Å) along each axis.
        rng: random number generator.
    """
    for _ in range(count):
        copy = strained(atoms, strain, rng) if is_bulk(atoms) else atoms.copy()
        copy.positions += rng.uniform(0, rattle) * rng.normal(size=(len(atoms), 3))
        yield copy


def strained(atoms: Atoms, largest: float, rng: np.random.Generator) -> Atoms:
    """A copy with a strained cell; ``largest`` is the bound of each component of the strain."""
    copy: Atoms = atoms.copy()
    random = rng.uniform(-largest, largest, (3, 3))
    deformation = np.eye(3) + (random + random.T) / 2
    copy.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return copy


def at_random(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """The same atoms at random places in the cell, which is enlarged until they fit.

    Without a cell the places are in a box of the size of the structure.
    """
    cell = atoms.cell.complete().array.copy()
    if atoms.cell.rank < 3:
        cell = np.diag(np.ptp(atoms.positions, axis=0) + 2.0)
    while True:
        made = _placed(atoms, cell, rng)
        if made is not None:
            return made
        cell *= GROWTH


def _placed(atoms: Atoms, cell: NDArray[np.float64], rng: np.random.Generator) -> Atoms | None:
    """Atoms at random places, or None if they did not fit."""
    made = Atoms(cell=cell, pbc=atoms.pbc)
    for symbol in rng.permutation(atoms.symbols):
        for _ in range(TRIES):
            trial = made.copy()
            trial.append(str(symbol))
            trial.positions[-1] = rng.random(3) @ cell
            if closest_approach(trial) >= APART:
                break
        else:
            return None
        made = trial
    if atoms.cell.rank < 3:
        made.set_cell(atoms.cell)
    return made


def _dynamics(
    run: Run,
    calculator: Calculator,
    limit: float | None,
    config: ExploreConfig,
    rng: np.random.Generator,
    check: Check,
    show: Show,
) -> Iterator[Atoms]:
    """Frames of molecular dynamics; where the model does not know a structure, it starts again.

    If the model does not know the first structure either, the limit is raised: otherwise there
    would be no dynamics of it before it is learned, and so nothing to learn it from.
    """
    steps, done = steps_of(config.time, config.timestep), 0
    for _ in range(STARTS):
        atoms = run.atoms.copy()
        atoms.calc = calculator
        atoms, noise = start(atoms, run.temperature, int(rng.integers(2**31)))
        number = 0
        try:
            for step in simulate(
                atoms,
                _integrator(atoms, run, config, noise),
                steps=steps - done,
                timestep=config.timestep,
                temperature=run.temperature,
                every=config.every,
            ):
                number = step.number
                show(run.name, done + number, steps)
                strange = bool(strange_atoms(atoms, limit))
                if strange and not number:
                    limit = BEYOND * float(atoms.calc.results["forces_uncertainty"].max())
                    strange = False
                if number and (step.row is not None or strange):
                    yield atoms
                if strange:
                    break
                check()
        except (Unstable, CalculationFailed):
            pass  # the structures before that remain
        done += max(1, number)
        if done >= steps:
            return


def _integrator(
    atoms: Atoms, run: Run, config: ExploreConfig, noise: np.random.Generator
) -> MolecularDynamics:
    """Constant volume, or constant pressure if the run has one."""
    if run.pressure is None:
        return langevin(atoms, config.timestep, run.temperature, SOON, noise)
    made: MolecularDynamics = isobaric(
        atoms, config.timestep, run.temperature, pressure=run.pressure, cell="free"
    )
    return made
