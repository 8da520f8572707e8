"""Integral of the correlations of a heat flux that is known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from tesseral.calculators.properties.conductivity import conductivity, recorded_flux


def decaying(steps: int, interval: float, decay: float) -> np.ndarray:
    """Fluxes (T, 3) of unit variance, whose correlations decay exponentially."""
    random = np.random.default_rng(0)
    keep = np.exp(-interval / decay)
    noise = random.normal(size=(steps, 3)) * (1 - keep**2) ** 0.5
    flux = np.empty((steps, 3))
    flux[0] = random.normal(size=3)
    for step in range(1, steps):
        flux[step] = keep * flux[step - 1] + noise[step]
    return flux


def test_conductivity_is_the_integral_of_the_correlations() -> None:
    decay, volume, temperature = 40.0, 500.0, 300.0
    flux = decaying(100_000, 2.0, decay)
    found = conductivity(flux, interval=2.0, volume=volume, temperature=temperature, longest=400)
    joule, boltzmann = 1.602176634e-19, 1.380649e-23
    square = (joule * 1e-10 / 1e-15) ** 2  # of 1 eV Å/fs, in SI units
    expected = square * decay * 1e-15 / (boltzmann * temperature**2 * volume * 1e-30)
    assert found.values[-1] == pytest.approx(expected, rel=0.1)
    np.testing.assert_allclose(found.correlation, np.exp(-found.time / decay), atol=0.05)


def test_a_run_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="`longest` is 50 fs, but 10 fluxes every 5 fs span 45 fs"):
        conductivity(np.ones((10, 3)), interval=5, volume=1, temperature=300, longest=50)


def test_another_calculator_is_refused() -> None:
    atoms = bulk("Al", cubic=True)
    atoms.calc = EMT()
    dynamics = VelocityVerlet(atoms, units.fs)
    with pytest.raises(ValueError, match="needs a TesseralCalculator"):
        recorded_flux(atoms, dynamics, time=0.01, timestep=1, every=1)
