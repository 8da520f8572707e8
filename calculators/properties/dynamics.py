"""Molecular dynamics as a test: energy conservation and stability at high temperature."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from numpy.typing import NDArray

from tesseral.calculators.properties.atoms import closest_approach, copy_atoms, pressure_gpa
from tesseral.calculators.properties.ensembles import (
    SOON,
    langevin,
    microcanonical,
    start,
    steps_of,
)

Floats = NDArray[np.float64]

BLOCKS = 10  # parts of a run regarded as independent in the error of its drift


class Unstable(RuntimeError):
    """A simulation has left the region in which the model is meaningful."""


class Record(NamedTuple):
    """Records of a run at T times; energies per atom."""

    time: Floats  # (T,) ps
    potential: Floats  # (T,) eV/atom
    kinetic: Floats  # (T,) eV/atom
    temperature: Floats  # (T,) K
    volume: Floats  # (T,) Å³/atom; NaN without a cell
    pressure: Floats  # (T,) GPa; NaN without a periodic cell

    @property
    def total(self) -> Floats:
        """Total energy, (T,) eV/atom."""
        total: Floats = self.potential + self.kinetic
        return total


class Step(NamedTuple):
    """State of a run after a step."""

    number: int
    temperature: float  # K
    row: tuple[float, ...] | None  # row of a Record if this step is recorded


class Drift(NamedTuple):
    """Result of a constant-energy run."""

    record: Record
    drift: float  # meV/atom over the run, by a linear fit of the total energy
    rate: float  # meV/atom/ns, the same fit
    fluctuation: float  # meV/atom, RMS about the fit
    temperature: float  # K, mean
    rate_error: float  # meV/atom/ns, standard error of the rate from the scatter of block means


class HotRun(NamedTuple):
    """A run with a thermostat at a high temperature."""

    record: Record
    closest: Floats  # (T,) smallest distance as a fraction of the sum of the covalent radii


def record_of(rows: Sequence[tuple[float, ...]]) -> Record:
    """Rows of ``Step`` as a record."""
    return Record(*np.array(rows, dtype=np.float64).reshape(-1, len(Record._fields)).T)


def simulate(
    atoms: Atoms,
    dynamics: Any,
    *,
    steps: int,
    timestep: float,
    temperature: float,
    every: int = 10,
    done: int = 0,
) -> Iterator[Step]:
    """Run ``dynamics`` step by step, and stop if it becomes meaningless.

    Args:
        atoms: the atoms that ``dynamics`` moves.
        dynamics: ASE integrator.
        steps: number of steps.
        timestep: time step (fs).
        temperature: expected temperature (K); the run stops at ten times this value (and at least
            3000 K).
        every: number of steps between records.
        done: number of steps done before, for a resumed run; the first step reported is this one.

    Raises:
        ValueError: ``every`` is less than 1.
        Unstable: forces are not finite, atoms overlap, or the temperature diverges.
    """
    if every < 1:
        raise ValueError(f"`every` is {every}; it must be 1 or more")
    limit = 10 * max(temperature, 300.0)
    step = done
    try:
        for step, _ in enumerate(dynamics.irun(steps - done), done):
            hot = float(atoms.get_temperature())
            if not hot < limit:
                raise Unstable(f"the temperature is {hot:.0f} K, expected about {temperature}")
            due = step % every == 0 or step == steps
            yield Step(step, hot, (step * timestep / 1000, *observe(atoms)) if due else None)
    except (CalculationFailed, ValueError, Unstable) as error:
        raise Unstable(
            f"MD ended at step {step} of {steps} ({step * timestep / 1000:.3f} ps): {error}"
        ) from None


def recorded(
    atoms: Atoms,
    dynamics: Any,
    *,
    time: float,
    timestep: float,
    temperature: float,
    every: int = 10,
    show: Callable[[Step], None] | None = None,
) -> Record:
    """Run ``dynamics`` for a time and record energies, temperature, volume and pressure.

    Args:
        atoms: structure with a calculator, moved by ``dynamics``.
        dynamics: ASE integrator, for example from ``properties.ensembles``.
        time: duration (ps).
        timestep: time step (fs) of ``dynamics``.
        temperature: expected temperature (K); the run stops at ten times this value (and at least
            3000 K).
        every: number of steps between records.
        show: called with every step.

    Raises:
        ValueError: a time or time step is not positive, or ``every`` is less than 1.
        Unstable: forces are not finite, atoms overlap, or the temperature diverges.
    """
    rows = []
    for step in simulate(
        atoms,
        dynamics,
        steps=steps_of(time, timestep),
        timestep=timestep,
        temperature=temperature,
        every=every,
    ):
        if step.row is not None:
            rows.append(step.row)
        if show is not None:
            show(step)
    return record_of(rows)


def observe(atoms: Atoms) -> tuple[float, ...]:
    """One row of a record, without the time."""
    n_atoms = len(atoms)
    return (
        atoms.get_potential_energy() / n_atoms,
        atoms.get_kinetic_energy() / n_atoms,
        atoms.get_temperature(),
        atoms.get_volume() / n_atoms if atoms.cell.rank == 3 else float("nan"),
        pressure_gpa(atoms, ideal_gas=True),
    )


def drift_of(record: Record) -> Drift:
    """The linear fit of the total energy against time."""
    total = 1000 * (record.total - record.total[0])
    slope, offset = np.polyfit(record.time, total, 1)
    rest = total - (slope * record.time + offset)
    return Drift(
        record,
        drift=float(slope * np.ptp(record.time)),
        rate=float(1000 * slope),
        fluctuation=float(np.sqrt((rest**2).mean())),
        temperature=float(record.temperature.mean()),
        rate_error=1000 * _slope_error(record.time, rest),
    )


def mean_error(values: Floats) -> float:
    """Standard error of the mean of correlated values, from the scatter of the means of blocks.

    NaN for fewer than 20 values. Source: H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91, 461
    (1989), with a fixed number of blocks.
    """
    if len(values) < 2 * BLOCKS:
        return math.nan
    means = np.array([part.mean() for part in np.array_split(values, BLOCKS)])
    return float(means.std(ddof=1) / math.sqrt(BLOCKS))


def _slope_error(time: Floats, rest: Floats) -> float:
    """Standard error of a slope whose residuals are correlated; NaN for a short record."""
    if len(time) < 2 * BLOCKS:
        return math.nan
    times, means = (
        np.array([part.mean() for part in np.array_split(values, BLOCKS)])
        for values in (time, rest)
    )
    variance = means.var(ddof=2)
    return float(np.sqrt(variance / np.square(times - times.mean()).sum()))


def equilibrated(
    atoms: Atoms, *, temperature: float, time: float, timestep: float, seed: int = 0
) -> Atoms:
    """A copy of the atoms after a run with a Langevin thermostat.

    Args:
        atoms: structure with a calculator; not changed.
        temperature: temperature (K).
        time: duration (ps).
        timestep: time step (fs).
        seed: random seed of the velocities.

    Raises:
        Unstable: the run diverges.
    """
    atoms, thermostat = _thermostatted(atoms, temperature, timestep, seed)
    steps = max(1, round(1000 * time / timestep))
    for _ in simulate(atoms, thermostat, steps=steps, timestep=timestep, temperature=temperature):
        pass
    return atoms


def conserved_energy(
    atoms: Atoms, *, temperature: float, time: float, timestep: float, every: int = 1
) -> Drift:
    """A constant-energy run from the velocities of the atoms.

    Args:
        atoms: structure with velocities and a calculator; not changed.
        temperature: expected temperature (K).
        time: duration (ps).
        timestep: time step (fs).
        every: number of steps between records.

    Raises:
        ValueError: a time or time step is not positive.
        Unstable: the run diverges.
    """
    atoms = copy_atoms(atoms)
    record = recorded(
        atoms,
        microcanonical(atoms, timestep),
        time=time,
        timestep=timestep,
        temperature=temperature,
        every=every,
    )
    return drift_of(record)


def hot_run(
    atoms: Atoms,
    *,
    temperature: float,
    time: float,
    timestep: float,
    every: int = 10,
    seed: int = 0,
    show: Callable[[Step], None] | None = None,
) -> HotRun:
    """A run with a Langevin thermostat that records the smallest distance.

    Args:
        atoms: structure with a calculator; not changed.
        temperature: temperature (K).
        time: duration (ps).
        timestep: time step (fs).
        every: number of steps between records.
        seed: random seed of the velocities.
        show: called with every step.

    Raises:
        Unstable: the run diverges.
    """
    atoms, thermostat = _thermostatted(atoms, temperature, timestep, seed)
    rows, closest = [], []
    steps = max(1, round(1000 * time / timestep))
    for step in simulate(
        atoms, thermostat, steps=steps, timestep=timestep, temperature=temperature, every=every
    ):
        if step.row is not None:
            rows.append(step.row)
            closest.append(closest_approach(atoms))
        if show is not None:
            show(step)
    return HotRun(record_of(rows), np.array(closest))


def _thermostatted(
    atoms: Atoms, temperature: float, timestep: float, seed: int
) -> tuple[Atoms, Any]:
    """A copy of the atoms with random velocities, and a thermostat."""
    atoms, rng = start(atoms, temperature, seed)
    return atoms, langevin(atoms, timestep, temperature, SOON, rng)
