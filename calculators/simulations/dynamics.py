"""Molecular dynamics of one structure, which can be resumed from any recorded frame."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.cell import Cell

from tesseral.calculators.properties.atoms import is_bulk
from tesseral.calculators.properties.dynamics import (
    Record,
    drift_of,
    mean_error,
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
    set_temperature,
    start,
    state_of,
    steps_of,
)
from tesseral.calculators.simulations.config import MdConfig
from tesseral.calculators.simulations.frames import (
    FrameWriter,
    Table,
    frame_of,
    intact_frame,
    open_frames,
    read_rows,
    with_suffix,
    write_frames,
)
from tesseral.calculators.simulations.relaxation import CELL_COLUMNS, Outcome, Show
from tesseral.calculators.simulations.uncertainty import Watch, limit_of, pairs_of

HEADER = (
    "time_ps",
    "potential_eV_atom",
    "kinetic_eV_atom",
    "temperature_K",
    "volume_A3_atom",
    "pressure_GPa",
)
COLUMNS = (  # averages over the second half of the run and their standard errors; drift for nve
    "energy_eV_atom",
    "energy_error_eV_atom",
    "temperature_K",
    "temperature_error_K",
    "pressure_GPa",
    "pressure_error_GPa",
    "volume_change_percent",
    "drift_meV_atom",
    *CELL_COLUMNS,  # of the mean cell, for npt
    "uncertain",  # pairs that are closer than in the training set
)
KEY = "tesseral_md"  # entry in the info of a frame: its step and the state of the integrator
UNKNOWN = ".unknown.extxyz"  # ending of the file of the structure at which a run stopped
AGREES = 1e-3  # eV/atom; a frame is damaged if the model gives another energy than the stored one


class Checkpoint(NamedTuple):
    """A frame from which a run can be resumed."""

    frames: int  # number of frames up to and including this one
    atoms: Atoms
    step: int
    state: dict[str, Any]


def md_one(
    atoms: Atoms, calculator: Calculator, config: MdConfig, prefix: Path, show: Show
) -> Outcome:
    """Run molecular dynamics of a structure, or resume a run.

    Args:
        atoms: initial structure; not changed. Its constraints apply.
        calculator: calculator of the model.
        config: options of the run.
        prefix: path of the ``.traj`` and ``.csv`` files without their endings. Existing frames must
            come from the same atoms, model and options.
        show: called with each step.

    Raises:
        ValueError: the model cannot evaluate the structure, or the ensemble does not apply to it.
        Unstable: the run diverges.
    """
    steps = steps_of(config.time, config.timestep)
    limit = limit_of(calculator, config.stop_uncertainty, config.no_stop_uncertainty)
    path = with_suffix(prefix, ".traj")
    # The pressure and the volume of a structure with vacuum depend on the width of the vacuum.
    volume = atoms.get_volume() / len(atoms) if is_bulk(atoms) else math.nan
    checkpoint = last_checkpoint(path, calculator)
    if checkpoint is None:
        path.unlink(missing_ok=True)
        atoms = atoms.copy()
        atoms.calc = calculator
        atoms, dynamics = _begin(atoms, config, limit, show)
        done, frames = 0, 0
    else:
        atoms, done, frames = checkpoint.atoms, checkpoint.step, checkpoint.frames
        atoms.calc = calculator
        dynamics = _integrator(atoms, config, np.random.default_rng(config.seed))
        set_state(dynamics, checkpoint.state)
    rows = _rows_so_far(prefix, config, frames)
    strange, number, watch = "", done, Watch(limit, config.timestep)
    table = Table(with_suffix(prefix, ".csv"), HEADER, rows)
    try:
        with closing(FrameWriter(path)) as trajectory:
            for step in simulate(
                atoms,
                dynamics,
                steps=max(steps, done),
                timestep=config.timestep,
                temperature=max(config.temperature, config.temperature_at(1.0)),
                every=config.every,
                done=done,
            ):
                if config.final_temperature is not None:  # of the next step
                    set_temperature(dynamics, config.temperature_at((step.number + 1) / steps))
                if step.row is not None and (step.number > done or not frames):
                    frame = frame_of(atoms, atoms.constraints)
                    frame.info[KEY] = {"step": step.number, **state_of(dynamics)}
                    trajectory.add(frame)
                    table.add(step.row)
                    rows.append(step.row)
                show(step.number, steps, f"{step.temperature:.0f} K")
                number = step.number
                strange = watch.strange(atoms)
                if strange:
                    break
    finally:
        table.close()
    values = _means(record_of(rows), config, volume)
    with open_frames(path) as known:
        if config.extxyz:
            write_frames(with_suffix(prefix, ".extxyz"), map(_without_state, known))
        if config.ensemble == "npt":
            late = [frame.cell.array for frame in known[len(known) // 2 :]]
            values |= zip(CELL_COLUMNS, Cell(np.mean(late, axis=0)).cellpar(), strict=True)
        values["uncertain"] = _close_pairs(known, calculator)
    if not strange:
        return Outcome("done", max(steps, done), values)
    return Outcome("stopped", number, values, _stopped(atoms, strange, number, config, prefix))


def _stopped(atoms: Atoms, strange: str, step: int, config: MdConfig, prefix: Path) -> str:
    """Write the structure at which a run stops, and return the reason."""
    path = with_suffix(prefix, UNKNOWN)
    frame = frame_of(atoms, ())
    frame.arrays["forces_uncertainty"] = atoms.calc.results["forces_uncertainty"]
    write_frames(path, [frame])
    return (
        f"stopped at step {step} ({step * config.timestep / 1000:.3f} ps): {strange}; the "
        f"structure is {path}; add it to the training set, or run on with "
        "`no_stop_uncertainty=True`"
    )


def _close_pairs(frames: Iterable[Atoms], calculator: Calculator) -> str:
    """Pairs of the recorded frames that are closer than in the training set, in words."""
    pairs = pairs_of(calculator)
    if pairs is None:
        return ""
    each = (pairs.closer_in(frame, frame.info[KEY]["step"]) for frame in frames)
    return pairs.words(chain.from_iterable(each), "at step")


def last_checkpoint(path: Path, calculator: Calculator) -> Checkpoint | None:
    """The last frame from which a run can be resumed; later frames are removed.

    Args:
        path: trajectory written by `md_one`; it need not exist.
        calculator: calculator of the model, used to check the energy of the frame.
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


def _without_state(frame: Atoms) -> Atoms:
    """A frame without the state of the integrator."""
    frame.info.pop(KEY, None)
    return frame


def _confirmed(frame: Atoms, calculator: Calculator) -> bool:
    """Whether the model reproduces the energy stored in the frame."""
    stored = frame.get_potential_energy()
    try:
        computed = calculator.get_potential_energy(frame)
    except (ValueError, RuntimeError):
        return False
    return bool(abs(computed - stored) < AGREES * len(frame))


def _begin(atoms: Atoms, config: MdConfig, limit: float | None, show: Show) -> tuple[Atoms, Any]:
    """Atoms with velocities at the start of the run, and their integrator."""
    atoms, rng = start(atoms, config.temperature, config.seed)
    if config.ensemble == "nve" and config.equilibrate > 0:
        steps, watch = steps_of(config.equilibrate, config.timestep), Watch(limit, config.timestep)
        for step in simulate(
            atoms,
            langevin(atoms, config.timestep, config.temperature, SOON, rng),
            steps=steps,
            timestep=config.timestep,
            temperature=config.temperature,
        ):
            show(step.number, steps, f"equilibrate, {step.temperature:.0f} K")
            if watch.strange(atoms):
                break
    return atoms, _integrator(atoms, config, rng)


def _integrator(atoms: Atoms, config: MdConfig, rng: np.random.Generator) -> Any:
    """The integrator for the ensemble."""
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
        cell=config.cell,
    )


def _rows_so_far(prefix: Path, config: MdConfig, frames: int) -> list[tuple[float, ...]]:
    """Table rows of the existing frames; rows missing from the table are made from the frames."""
    rows = read_rows(with_suffix(prefix, ".csv"), len(HEADER))[:frames]
    if len(rows) < frames:
        with open_frames(with_suffix(prefix, ".traj")) as known:
            for number in range(len(rows), frames):
                step = known[number].info[KEY]["step"]
                rows.append((step * config.timestep / 1000, *observe(known[number])))
    return rows


def _means(record: Record, config: MdConfig, volume: float) -> dict[str, float | str]:
    """Averages over the second half by column.

    Args:
        record: the run.
        config: its options.
        volume: initial volume (Å³/atom); NaN if volume and pressure have no meaning.
    """
    late = slice(len(record.time) // 2, None)
    values: dict[str, float | str] = {
        "energy_eV_atom": float(record.potential[late].mean()),
        "energy_error_eV_atom": mean_error(record.potential[late]),
        "temperature_K": float(record.temperature[late].mean()),
        "temperature_error_K": mean_error(record.temperature[late]),
    }
    if math.isfinite(volume):
        values["pressure_GPa"] = float(record.pressure[late].mean())
        values["pressure_error_GPa"] = mean_error(record.pressure[late])
        values["volume_change_percent"] = 100 * (float(record.volume[late].mean()) / volume - 1)
    if config.ensemble == "nve" and len(record.time) > 2:
        values["drift_meV_atom"] = drift_of(record).drift
    return values
