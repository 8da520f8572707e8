"""Molecular dynamics of one structure; a run can be resumed from each recorded frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io.trajectory import Trajectory

from tesseral.calculators.properties.dynamics import (
    Record,
    drift_of,
    observe,
    record_of,
    simulate,
)
from tesseral.calculators.properties.ensembles import (
    SOON,
    canonical,
    isobaric,
    langevin,
    microcanonical,
    set_state,
    start,
    state_of,
    steps_of,
)
from tesseral.calculators.simulations.frames import (
    Table,
    frame_of,
    intact_frame,
    open_frames,
    read_rows,
    with_suffix,
    write_frames,
)
from tesseral.calculators.simulations.relaxation import Outcome, Show

HEADER = (
    "time_ps",
    "potential_eV",
    "kinetic_eV",
    "temperature_K",
    "volume_A3",
    "pressure_GPa",
)
COLUMNS = (  # averages over the second half; the drift of nve
    "energy_eV_atom",
    "temperature_K",
    "pressure_GPa",
    "volume_change_percent",
    "drift_meV_atom",
)
KEY = "tesseral_md"  # in the info of a frame: its step, and the state of the integrator
AGREES = 1e-3  # eV/atom; a stored energy that the model does not confirm is of a damaged frame


@dataclass(frozen=True, kw_only=True)
class MdConfig:
    """Molecular dynamics at constant energy, temperature, or temperature and pressure.

    Args:
        structures: structure files, anything that ASE reads; all frames of each, or those named by
            FILE@INDEX (OUTCAR@-1 is the last).
        model: model file, or universal.
        output: folder for the results; STRUCTURE-md (md for several files) if not given. The same
            command again resumes where it stopped.
        ensemble: nve, nvt or npt.
        temperature: K, of the first velocities and of the thermostat.
        pressure: GPa, of npt; the cell keeps its shape.
        time: ps; more may be asked for later.
        timestep: fs.
        every: steps between records.
        seed: of the random numbers.
        thermostat: of nvt; bussi keeps the dynamics, langevin reaches equilibrium faster.
        damping: fs, of the temperature.
        pressure_damping: fs, of the pressure.
        equilibrate: ps with a thermostat before nve; 0 for none.
        repeat: supercell of so many cells.
        processes: structures at once, each on one thread; as many as there are cores for many small
            structures.
        device: cpu, cuda, …; a GPU if there is one when not given.
        dtype: float32 or float64; that of the model if not given.

    Raises:
        ValueError: numbers that are not positive.
    """

    structures: list[str]
    model: str = "universal"
    output: str | None = None
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    temperature: float = 300.0
    pressure: float = 0.0
    time: float = 2.0
    timestep: float = 1.0
    every: int = 10
    seed: int = 0
    thermostat: Literal["bussi", "langevin"] = "bussi"
    damping: float = 100.0
    pressure_damping: float = 1000.0
    equilibrate: float = 0.2
    repeat: tuple[int, int, int] = (1, 1, 1)
    processes: int = 1
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        steps_of(self.time, self.timestep)
        for name in ("temperature", "damping", "pressure_damping"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"`{name}` is {value}; it must be a positive number")
        for name in ("every", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.equilibrate < math.inf:
            raise ValueError(f"`equilibrate` is {self.equilibrate} ps; it must be 0 or more")
        if not math.isfinite(self.pressure) or (self.pressure and self.ensemble != "npt"):
            raise ValueError(
                f"`pressure` is {self.pressure} GPa; it must be a number, and needs "
                "`ensemble='npt'`"
            )


class Checkpoint(NamedTuple):
    """A frame from which a run can be resumed."""

    frames: int  # up to and with this one
    atoms: Atoms
    step: int
    state: dict[str, Any]


def md_one(
    atoms: Atoms, calculator: Calculator, config: MdConfig, prefix: Path, show: Show
) -> Outcome:
    """Run the dynamics of a structure, or resume it.

    Args:
        atoms: not changed; their constraints hold.
        calculator: of the model.
        config: how.
        prefix: start of the ``.traj`` and ``.csv`` files. Frames that the first holds must come
            from the same atoms, model and options.
        show: called with each step.

    Raises:
        ValueError: a structure that the model has no answer for, or not in this ensemble.
        Unstable: the run explodes.
    """
    steps = steps_of(config.time, config.timestep)
    path = with_suffix(prefix, ".traj")
    volume = atoms.get_volume() if atoms.cell.rank == 3 else math.nan
    checkpoint = last_checkpoint(path, calculator)
    if checkpoint is None:
        path.unlink(missing_ok=True)
        atoms = atoms.copy()
        atoms.calc = calculator
        atoms, dynamics = _begin(atoms, config, show)
        done, frames = 0, 0
    else:
        atoms, done, frames = checkpoint.atoms, checkpoint.step, checkpoint.frames
        atoms.calc = calculator
        dynamics = _integrator(atoms, config, np.random.default_rng(config.seed))
        set_state(dynamics, checkpoint.state)
    rows = _rows_so_far(prefix, config, frames)
    table = Table(with_suffix(prefix, ".csv"), HEADER, rows)
    try:
        with Trajectory(path, "a") as trajectory:
            for step in simulate(
                atoms,
                dynamics,
                steps=max(steps, done),
                timestep=config.timestep,
                temperature=config.temperature,
                every=config.every,
                done=done,
            ):
                if step.row is not None and (step.number > done or not frames):
                    frame = frame_of(atoms, atoms.constraints)
                    frame.info[KEY] = {"step": step.number, **state_of(dynamics)}
                    trajectory.write(frame)
                    table.add(step.row)
                    rows.append(step.row)
                show(step.number, steps, f"{step.temperature:.0f} K")
    finally:
        table.close()
    return Outcome("done", max(steps, done), _means(record_of(rows), config, volume / len(atoms)))


def last_checkpoint(path: Path, calculator: Calculator) -> Checkpoint | None:
    """The last frame from which a run can be resumed; later frames are removed.

    Args:
        path: trajectory that `md_one` wrote, or nothing.
        calculator: of the model; confirms the energy of the frame.
    """
    with open_frames(path) as frames:
        count = len(frames)
        for number in reversed(range(count)):
            frame = intact_frame(frames, number)
            if frame is None or KEY not in frame.info or not _confirmed(frame, calculator):
                continue
            if number + 1 < count:
                write_frames(path, (frames[index] for index in range(number + 1)))
            state = frame.info.pop(KEY)
            return Checkpoint(number + 1, frame, state.pop("step"), state)
    return None


def _confirmed(frame: Atoms, calculator: Calculator) -> bool:
    """Whether the model gives the energy stored in the frame."""
    stored = frame.get_potential_energy()
    try:
        computed = calculator.get_potential_energy(frame)
    except (ValueError, RuntimeError):
        return False
    return bool(abs(computed - stored) < AGREES * len(frame))


def _begin(atoms: Atoms, config: MdConfig, show: Show) -> tuple[Atoms, Any]:
    """Atoms with velocities, at the start of the run, and what moves them."""
    atoms, rng = start(atoms, config.temperature, config.seed)
    if config.ensemble == "nve" and config.equilibrate > 0:
        steps = steps_of(config.equilibrate, config.timestep)
        for step in simulate(
            atoms,
            langevin(atoms, config.timestep, config.temperature, SOON, rng),
            steps=steps,
            timestep=config.timestep,
            temperature=config.temperature,
        ):
            show(step.number, steps, f"equilibrate, {step.temperature:.0f} K")
    return atoms, _integrator(atoms, config, rng)


def _integrator(atoms: Atoms, config: MdConfig, rng: np.random.Generator) -> Any:
    """The integrator of the ensemble."""
    if config.ensemble == "nve":
        return microcanonical(atoms, config.timestep)
    if config.ensemble == "nvt":
        return canonical(
            atoms,
            config.timestep,
            config.temperature,
            rng,
            thermostat=config.thermostat,
            damping=config.damping,
        )
    return isobaric(
        atoms,
        config.timestep,
        config.temperature,
        pressure=config.pressure,
        damping=config.damping,
        pressure_damping=config.pressure_damping,
    )


def _rows_so_far(prefix: Path, config: MdConfig, frames: int) -> list[tuple[float, ...]]:
    """The rows of the frames that are there; those that the table has lost, from the frames."""
    rows = read_rows(with_suffix(prefix, ".csv"), len(HEADER))[:frames]
    if len(rows) < frames:
        with open_frames(with_suffix(prefix, ".traj")) as known:
            for number in range(len(rows), frames):
                step = known[number].info[KEY]["step"]
                rows.append((step * config.timestep / 1000, *observe(known[number])))
    return rows


def _means(record: Record, config: MdConfig, volume: float) -> Sequence[float]:
    """Averages over the second half, in the order of COLUMNS; the drift of a run in nve."""
    late = slice(len(record.time) // 2, None)
    drift = math.nan
    if config.ensemble == "nve" and len(record.time) > 2:
        drift = drift_of(record).drift
    return (
        float(record.potential[late].mean()),
        float(record.temperature[late].mean()),
        float(record.pressure[late].mean()),
        100 * (float(record.volume[late].mean()) / volume - 1),
        drift,
    )
