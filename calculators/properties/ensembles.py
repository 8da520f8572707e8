"""Integrators of molecular dynamics, and their internal state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet

from tesseral.calculators.properties.atoms import (
    VACUUM,
    copy_atoms,
    is_crystal,
    thermalize,
    vacuum_gaps,
)

CELLS = ("isotropic", "axes", "free")
RIGHT = 0.1  # degrees; angles of a cell whose axes may change by themselves

SOON = 50.0  # fs, damping time of a Langevin thermostat for fast equilibration


def femtoseconds(value: float) -> float:
    """A time in fs converted to the time unit of ASE."""
    return float(value * units.fs)


def steps_of(time_ps: float, timestep_fs: float) -> int:
    """Number of steps of a run.

    Raises:
        ValueError: a time or a time step is not positive.
    """
    for name, value in (("time", time_ps), ("timestep", timestep_fs)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` is {value}; it must be a positive number")
    return max(1, round(1000 * time_ps / timestep_fs))


def start(atoms: Atoms, temperature: float, seed: int) -> tuple[Atoms, np.random.Generator]:
    """A copy of the atoms with random velocities, and the random number generator used.

    Raises:
        ValueError: the temperature is not positive, or no atom is free to move.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature` is {temperature} K; it must be a positive number")
    if atoms.get_number_of_degrees_of_freedom() < 1:
        raise ValueError("no atom of this structure is free to move; MD needs one")
    rng = np.random.default_rng(seed)
    atoms = copy_atoms(atoms)
    thermalize(atoms, temperature, rng)
    return atoms, rng


def langevin(
    atoms: Atoms, timestep: float, temperature: float, damping: float, rng: np.random.Generator
) -> Langevin:
    """A Langevin thermostat; time step and damping time in fs, temperature in K."""
    return Langevin(
        atoms,
        femtoseconds(timestep),
        temperature_K=temperature,
        friction=1 / femtoseconds(damping),
        rng=rng,
        fixcm=False,
    )


def canonical(
    atoms: Atoms,
    timestep: float,
    temperature: float,
    rng: np.random.Generator,
    *,
    thermostat: str = "bussi",
    damping: float = 100.0,
) -> Any:
    """An integrator at constant temperature.

    Args:
        atoms: structure with velocities; moved by the integrator.
        timestep: time step (fs).
        temperature: temperature (K).
        rng: random number generator of the thermostat.
        thermostat: ``bussi`` (velocity rescaling, disturbs the dynamics least) or ``langevin``
            (acts on every atom, equilibrates faster).
        damping: time constant (fs) of the thermostat.

    Raises:
        ValueError: the thermostat is unknown, or the damping time is not positive.
    """
    if thermostat not in ("bussi", "langevin") or not damping > 0:
        raise ValueError(
            f"`thermostat` is {thermostat!r} with `damping` {damping} fs; use bussi or langevin "
            "and a positive time"
        )
    if thermostat == "langevin":
        return langevin(atoms, timestep, temperature, damping, rng)
    return Bussi(atoms, femtoseconds(timestep), temperature, femtoseconds(damping), rng=rng)


def isobaric(
    atoms: Atoms,
    timestep: float,
    temperature: float,
    *,
    pressure: float = 0.0,
    damping: float = 100.0,
    pressure_damping: float = 1000.0,
    cell: str = "isotropic",
) -> Any:
    """An integrator at constant temperature and pressure.

    ASE's implementation of the Martyna–Tobias–Klein equations with Nosé–Hoover chains.

    Args:
        atoms: structure with velocities, periodic in three directions; moved by the integrator.
        timestep: time step (fs).
        temperature: temperature (K).
        pressure: pressure (GPa).
        damping: time constant (fs) of the thermostat.
        pressure_damping: time constant (fs) of the barostat.
        cell: ``isotropic`` keeps the shape of the cell, ``axes`` changes the lengths of
            perpendicular lattice vectors, ``free`` all lengths and angles.

    Raises:
        ValueError: the atoms are not periodic in three directions or have constraints, a damping
            time is not positive, or the choice of the cell is unknown or does not apply.
    """
    if not is_crystal(atoms):
        raise ValueError(
            f"constant pressure needs a crystal or liquid periodic in three directions; this "
            f"structure has pbc={atoms.pbc.tolist()} and {atoms.cell.rank} cell vectors"
        )
    widths = ", ".join(f"{width:.1f} Å" for width in vacuum_gaps(atoms) if width > VACUUM)
    if widths:
        raise ValueError(
            f"constant pressure needs matter that fills the cell; this one has vacuum of {widths}"
        )
    if atoms.constraints:
        raise ValueError(
            "constant pressure does not go with the constraints of this structure; remove them or "
            "use constant volume"
        )
    if not (damping > 0 and pressure_damping > 0):
        raise ValueError(
            f"`damping` is {damping} fs and `pressure_damping` {pressure_damping} fs; both must be "
            "positive"
        )
    if cell not in CELLS:
        raise ValueError(f"`cell` is {cell!r}; use one of {', '.join(CELLS)}")
    options: dict[str, Any] = {
        "timestep": femtoseconds(timestep),
        "temperature_K": temperature,
        "pressure_au": pressure * units.GPa,
        "tdamp": femtoseconds(damping),
        "pdamp": femtoseconds(pressure_damping),
    }
    if cell == "isotropic":
        return IsotropicMTKNPT(atoms, **options)
    if cell == "free":
        return MTKNPT(atoms, **options)
    angles = atoms.cell.angles()
    if np.abs(angles - 90).max() > RIGHT:
        raise ValueError(
            f"`cell='axes'` needs perpendicular lattice vectors; these have the angles "
            f"{', '.join(f'{angle:.1f}°' for angle in angles)}: use `cell='free'`"
        )
    try:
        from ase.md.nose_hoover_chain import MaskedMTKNPT  # ASE 3.25 has none
    except ImportError:
        raise ValueError("`cell='axes'` needs a newer ASE: pip install --upgrade ase") from None
    return MaskedMTKNPT(atoms, mask=(True, True, True), **options)


def microcanonical(atoms: Atoms, timestep: float) -> VelocityVerlet:
    """An integrator at constant energy; time step in fs."""
    return VelocityVerlet(atoms, femtoseconds(timestep))


def state_of(dynamics: Any) -> dict[str, Any]:
    """Internal state of an integrator of this module, without its atoms, in JSON types."""
    momenta = _cell_momenta(dynamics)
    if momenta:
        return {
            momenta.strip("_"): np.asarray(getattr(dynamics, momenta)).tolist(),
            **{f"{part}{name}": values.tolist() for part, name, values in _chains(dynamics)},
        }
    rng = getattr(dynamics, "rng", None)
    return {} if rng is None else {"random": rng.bit_generator.state}


def set_state(dynamics: Any, state: dict[str, Any]) -> None:
    """Restore a state from `state_of` in an integrator of the same kind.

    The integrator must be made from atoms with the positions, velocities and cell of that moment.
    """
    momenta = _cell_momenta(dynamics)
    if momenta:
        value = state[momenta.strip("_")]
        setattr(dynamics, momenta, np.array(value) if isinstance(value, list) else value)
        for part, name, values in _chains(dynamics):
            values[:] = state[f"{part}{name}"]
    elif "random" in state:
        dynamics.rng.bit_generator.state = state["random"]


def set_temperature(dynamics: Any, temperature: float) -> None:
    """Change the temperature (K) of an integrator of this module that has a thermostat.

    The masses of thermostat and barostat stay those of the first temperature; they only set the
    pace.
    """
    if isinstance(dynamics, Langevin):
        dynamics.set_temperature(temperature_K=temperature)
    elif isinstance(dynamics, Bussi):
        dynamics.temp = temperature * units.kB
        dynamics.target_kinetic_energy = 0.5 * dynamics.temp * dynamics.ndof
    elif _cell_momenta(dynamics):
        dynamics._temperature_K = temperature
        for part in (dynamics, dynamics._thermostat, dynamics._barostat):
            part._kT = temperature * units.kB
    else:
        raise ValueError("this integrator has no thermostat; its temperature cannot be set")


def _cell_momenta(dynamics: Any) -> str:
    """Name of the momenta of the cell in an integrator at constant pressure; empty for others."""
    if isinstance(dynamics, IsotropicMTKNPT):
        return "_p_eps"
    if isinstance(dynamics, MTKNPT):
        return "_p_c" if hasattr(dynamics, "_p_c") else "_p_g"
    return ""


def _chains(dynamics: Any) -> list[tuple[str, str, Any]]:
    """The arrays of the Nosé–Hoover chains by name; ASE has no public access to them."""
    heat, pressure = dynamics._thermostat, dynamics._barostat
    return [
        ("heat", "_eta", heat._eta),
        ("heat", "_p_eta", heat._p_eta),
        ("pressure", "_xi", pressure._xi),
        ("pressure", "_p_xi", pressure._p_xi),
    ]
