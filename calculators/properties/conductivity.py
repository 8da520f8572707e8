"""Thermal conductivity from the fluctuations of the heat flux at equilibrium (Green and Kubo)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary
from numpy.typing import NDArray

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.ensembles import steps_of

Floats = NDArray[np.float64]

W_PER_M_K = 1e25 * units._e  # W/m/K in eV/(Å fs K)


class FluxRecord(NamedTuple):
    """Heat flux during a run, at T times."""

    flux: Floats  # (T, 3) eV Å/fs, heat flux times the volume
    temperature: Floats  # (T,) K


class Conductivity(NamedTuple):
    """Thermal conductivity against the longest time of the correlations that count."""

    time: Floats  # (K,) fs
    correlation: Floats  # (K,) mean of J(0) · J(t), relative to that at 0
    values: Floats  # (K,) W/m/K, mean of the three directions, of correlations up to each time


def recorded_flux(
    atoms: Atoms,
    dynamics: Any,
    *,
    time: float,
    timestep: float,
    every: int,
    carried: bool = False,
) -> FluxRecord:
    """Run molecular dynamics, and record the flux of the energy that atoms exchange.

    Args:
        atoms: atoms with a ``TesseralCalculator``, moved by ``dynamics``. The motion of their
            centre of mass is removed.
        dynamics: integrator of ASE, at constant energy.
        time: duration (ps).
        timestep: time step (fs).
        every: number of steps between records.
        carried: add the energy that moving atoms carry. It contributes to the conductivity of a
            liquid, not to that of a solid. In a liquid of several elements the flux then contains
            their diffusion too, and the result is not the conductivity.

    Raises:
        ValueError: the calculator is another one, or the time is no whole number of steps.
    """
    calculator = atoms.calc
    if not isinstance(calculator, TesseralCalculator):
        raise ValueError(f"the heat flux needs a TesseralCalculator; found {calculator}")
    Stationary(atoms)
    fluxes, temperatures = [], []
    for step, _ in enumerate(dynamics.irun(steps_of(time, timestep))):
        if step % every == 0:
            flux = calculator.get_heat_flux(atoms)
            fluxes.append(flux.total if carried else flux.exchanged)
            temperatures.append(atoms.get_temperature())
    return FluxRecord(np.array(fluxes), np.array(temperatures))


def conductivity(
    flux: Floats, *, interval: float, volume: float, temperature: float, longest: float
) -> Conductivity:
    """Integral of the correlations of the heat flux.

    Args:
        flux: (T, 3) eV Å/fs, heat flux times the volume.
        interval: time (fs) between two of them.
        volume: volume (Å³).
        temperature: temperature (K).
        longest: time (fs) up to which correlations are integrated; at most that of the run.

    Raises:
        ValueError: the run is too short.
    """
    count = int(longest / interval) + 1
    if not 2 <= count <= len(flux):
        raise ValueError(
            f"`longest` is {longest} fs, but {len(flux)} fluxes every {interval} fs span "
            f"{interval * (len(flux) - 1):g} fs"
        )
    flux = flux - flux.mean(axis=0)
    size = 2 * len(flux)  # no correlation of the end with the start
    power = np.abs(np.fft.rfft(flux, size, axis=0)) ** 2
    sums = np.fft.irfft(power, size, axis=0)[:count].sum(axis=1)
    means: Floats = sums / np.arange(len(flux), len(flux) - count, -1)
    integral = interval * np.concatenate([[0], np.cumsum(0.5 * (means[1:] + means[:-1]))])
    correlation: Floats = means / means[0]
    factor = W_PER_M_K / (3 * volume * units.kB * temperature**2)
    times: Floats = interval * np.arange(count, dtype=np.float64)
    return Conductivity(times, correlation, factor * integral)
