"""Sections: energy conservation at several temperatures and time steps; high-temperature run."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tesseral.calculators.properties.dynamics import (
    Drift,
    HotRun,
    Record,
    Unstable,
    conserved_energy,
    equilibrated,
    hot_run,
)
from tesseral.report.content import Block, Note, Section, Verdict, number, table
from tesseral.report.context import Context
from tesseral.report.figures import BLUE, GREY, ORANGE, RED, finish, panels, picture
from tesseral.report.verdicts import decide, judge

HOT_CRYSTAL, HOT_MOLECULE = 2000.0, 1000.0  # K
RECORDED_EVERY = 4  # fs
EARLY = 0.2  # ps, interval in which the fluctuations of two time steps are compared


class Run(NamedTuple):
    """A constant-energy run, or the reason why it ended."""

    temperature: float  # K, requested
    timestep: float  # fs
    drift: Drift | None
    problem: str


def dynamics(context: Context) -> Section:
    """Drift and fluctuation of the total energy, and their dependence on the time step."""
    time = context.effort.md_time
    runs = [run for t in context.temperatures for run in _runs(context, t, time)]
    verdicts: list[Verdict] = []
    for temperature in context.temperatures:
        mine = [run for run in runs if run.temperature == temperature]
        verdicts += _verdicts(temperature, mine)
    blocks: list[Block] = [_energies_picture(runs, context.temperatures)]
    header = (
        "temperature (K)",
        "mean (K)",
        "step (fs)",
        "drift (meV/atom/ns)",
        "fluctuation (meV/atom)",
    )
    blocks.append(table(header, [_row(run) for run in runs]))
    blocks += [Note(f"{_label(run)}: {run.problem}") for run in runs if run.problem]
    return Section(
        lead=f"Molecular dynamics at constant energy ({context.sample_name}, {time:g} ps after "
        f"{context.effort.warm_up:g} ps with a thermostat). The total energy must be conserved; "
        "the fluctuation from the integrator falls to a quarter with half the time step. The drift "
        "is the slope of a linear fit; the verdict is open if two standard errors cross a limit.",
        blocks=tuple(blocks),
        verdicts=tuple(verdicts),
        numbers={_label(run): _numbers(run) for run in runs},
    )


def _label(run: Run) -> str:
    return f"{run.temperature:g} K, {run.timestep:g} fs"


def _runs(context: Context, temperature: float, time: float) -> list[Run]:
    """Runs with each time step from the same initial state."""
    short = context.timesteps[0]
    try:
        start = equilibrated(
            context.sample, temperature=temperature, time=context.effort.warm_up, timestep=short
        )
    except Unstable as error:
        return [Run(temperature, step, None, str(error)) for step in context.timesteps]
    runs = []
    for step in context.timesteps:
        every = max(1, round(RECORDED_EVERY / step))
        try:
            drift = conserved_energy(
                start, temperature=temperature, time=time, timestep=step, every=every
            )
            runs.append(Run(temperature, step, drift, ""))
        except Unstable as error:
            runs.append(Run(temperature, step, None, str(error)))
    return runs


def _verdicts(temperature: float, runs: list[Run]) -> list[Verdict]:
    """Verdicts on the drift with the shorter step and the order of the fluctuation."""
    where = f"at {temperature:g} K"
    broken = [run for run in runs if run.drift is None]
    if broken:
        return [decide("drift", "fail", broken[0].problem, None, where)]
    first, second = (run.drift for run in runs)
    assert first is not None and second is not None
    error = first.rate_error  # NaN for a very short run
    known = "unknown error" if math.isnan(error) else f"± {error:.1f}"
    shown = f"{first.rate:+.1f} {known} meV/atom/ns".replace("-", "−")
    verdicts = [judge("drift", abs(first.rate), error=error, shown=shown, subject=where)]
    exponent = math.log2(_early(second.record) / max(_early(first.record), 1e-12))
    text = f"exponent {exponent:.2f}".replace("-", "−")
    verdicts.append(judge("order", abs(exponent - 2), shown=text, subject=where))
    return verdicts


def _early(record: Record) -> float:
    """Fluctuation (eV/atom) at the start, where runs from the same state are still comparable."""
    return float(record.total[record.time <= EARLY].std())


def _row(run: Run) -> tuple[str, ...]:
    start = (f"{run.temperature:g}",)
    if run.drift is None:
        return (*start, "–", f"{run.timestep:g}", "ended", "–")
    drift = run.drift
    rate = f"{drift.rate:+.2f} ± {drift.rate_error:.2f}".replace("-", "−")
    return (
        *start,
        f"{drift.temperature:.0f}",
        f"{run.timestep:g}",
        rate,
        number(drift.fluctuation),
    )


def _numbers(run: Run) -> dict[str, Any]:
    if run.drift is None:
        return {"problem": run.problem}
    numbers = {k: v for k, v in run.drift._asdict().items() if k != "record"}
    record = run.drift.record
    return {**numbers, "time_ps": record.time, "total_eV_per_atom": record.total}


def _energies_picture(runs: list[Run], temperatures: tuple[float, ...]) -> Any:
    count = len(temperatures)
    figure, axes = panels(1, count, width=4.5 * count + 0.2, height=2.9)
    for axis, temperature in zip(axes[0], temperatures, strict=True):
        mine = [run for run in runs if run.temperature == temperature]
        for run, color in reversed(list(zip(mine, (BLUE, ORANGE), strict=False))):
            if run.drift is None:
                continue
            record = run.drift.record
            total = 1000 * (record.total - record.total[0])
            axis.plot(record.time, total, color=color, lw=0.8, label=f"{run.timestep:g} fs")
            line = np.polyval(np.polyfit(record.time, total, 1), record.time)
            axis.plot(record.time, line, "--", color=color, linewidth=0.9)
        finish(
            axis, f"{temperature:g} K", "time (ps)", "total energy − start (meV/atom)", legend=True
        )
    return picture(
        figure, "total energy", "Total energy in each run (lines) and its linear fit (dashed)."
    )


def hot(context: Context) -> Section:
    """A run at a temperature far above the usual ones."""
    crystal = bool(context.sample.pbc.all())
    usual = HOT_CRYSTAL if crystal else HOT_MOLECULE
    temperature = context.config.hot or usual
    time = context.effort.hot_time
    where = f"at {temperature:g} K"
    lead = (
        f"{time:g} ps with a thermostat {where} ({context.sample_name}). The smallest distance is "
        "a fraction of the sum of the covalent radii; below 0.6 the atoms overlap."
    )
    step = context.timesteps[0]
    try:
        run = hot_run(context.sample, temperature=temperature, time=time, timestep=step)
    except Unstable as error:
        verdict = decide("hot", "fail", str(error), None, where)
        return Section(lead, (Note(str(error)),), (verdict,), {"problem": str(error)})
    closest = float(run.closest.min())
    return Section(
        lead=lead,
        blocks=(_hot_picture(run),),
        verdicts=(judge("hot", closest, shown=f"{closest:.2f}", subject=where),),
        numbers={
            "temperature_K": temperature,
            "closest": closest,
            "time_ps": run.record.time,
            "closest_by_time": run.closest,
            "temperature_by_time_K": run.record.temperature,
        },
    )


def _hot_picture(run: HotRun) -> Any:
    figure, axes = panels(1, 2, height=2.6)
    axes[0, 0].plot(run.record.time, run.record.temperature, color=ORANGE, linewidth=0.9)
    finish(axes[0, 0], "", "time (ps)", "temperature (K)")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 1].plot(run.record.time, run.closest, color=BLUE, linewidth=0.9)
    axes[0, 1].axhline(0.6, color=RED, linewidth=0.8, linestyle="--")
    axes[0, 1].axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    finish(axes[0, 1], "", "time (ps)", "smallest distance / covalent")
    axes[0, 1].set_ylim(0.4, max(1.1, 1.05 * float(run.closest.max())))
    return picture(
        figure,
        "hot run",
        "Temperature, and the smallest distance of two atoms (dashed: the limit; dotted: the sum "
        "of covalent radii).",
    )
