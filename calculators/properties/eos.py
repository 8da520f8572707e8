"""Equation of state: energy against volume, equilibrium lattice, bulk modulus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.optimize import BFGS
from numpy.typing import ArrayLike, NDArray

from tesseral.calculators.properties.atoms import copy_atoms, is_crystal
from tesseral.calculators.properties.relaxation import CellFilter

Floats = NDArray[np.float64]
Track = Callable[[Iterable[float]], Iterable[float]]


class BirchMurnaghan(NamedTuple):
    """Third-order Birch–Murnaghan fit; energy and volume are those of the fitted cell."""

    volume: float  # Å³, V0
    energy: float  # eV, E0
    bulk_modulus: float  # GPa, B0
    pressure_derivative: float  # B0'
    coefficients: tuple[float, ...]  # coefficients of E in powers of V^(-2/3), highest first

    def __call__(self, volumes: ArrayLike) -> Floats:
        """Energies in eV at the volumes in Å³."""
        x: Floats = np.asarray(volumes, dtype=np.float64) ** (-2 / 3)
        energies: Floats = np.polyval(np.array(self.coefficients), x).astype(np.float64)
        return energies


class EquationOfState(NamedTuple):
    """Energies and volumes, their fit, and the lattice at the minimum."""

    volumes: Floats  # (P,) Å³ of the cell
    energies: Floats  # (P,) eV
    fit: BirchMurnaghan
    lattice: dict[str, float]  # a (b, c, angles) of the conventional cell at V0, Å and degrees
    n_atoms: int


def fit_birch_murnaghan(volumes: ArrayLike, energies: ArrayLike) -> BirchMurnaghan:
    """Fit E(V) as a cubic polynomial in x = V^(-2/3) (Birch 1947).

    Args:
        volumes: (P,) Å³, at least four.
        energies: (P,) eV.

    Raises:
        ValueError: there are too few points, or there is no minimum between the smallest and the
            largest volume.
    """
    v, e = np.asarray(volumes, dtype=np.float64), np.asarray(energies, dtype=np.float64)
    if len(v) < 4:
        raise ValueError(f"a fit with four parameters has {len(v)} points; use more")
    polynomial = np.poly1d(np.polyfit(v ** (-2 / 3), e, 3))
    first, second, third = (polynomial.deriv(order) for order in (1, 2, 3))
    minima = [
        float(root.real)
        for root in first.roots
        if abs(root.imag) < 1e-12 and second(root.real) > 0 and root.real > 0
    ]
    inside = [x for x in minima if v.min() <= x**-1.5 <= v.max()]
    if not inside:
        raise ValueError(
            f"the energy has no minimum between {v.min():.2f} and {v.max():.2f} Å³; relax the "
            "structure first or increase `extent`"
        )
    x = inside[0]
    volume = x**-1.5
    bulk = 4 / 9 * x ** (7 / 2) * second(x)  # V d²E/dV² where dE/dV = 0
    derivative = 4 + 2 / 3 * x * third(x) / second(x)
    return BirchMurnaghan(
        volume=float(volume),
        energy=float(polynomial(x)),
        bulk_modulus=float(bulk / units.GPa),
        pressure_derivative=float(derivative),
        coefficients=tuple(float(c) for c in polynomial.coefficients),
    )


def equation_of_state(
    atoms: Atoms,
    *,
    points: int = 9,
    extent: float = 0.06,
    fixed_positions: bool = False,
    fixed_shape: bool = False,
    track: Track = iter,
) -> EquationOfState:
    """Energy of a crystal against its volume, with the shape of the cell relaxed.

    Args:
        atoms: relaxed crystal with a calculator; not changed.
        points: number of volumes.
        extent: maximum relative change of the volume in both directions.
        fixed_positions: relax neither the atoms in each cell nor its shape.
        fixed_shape: keep the shape of the cell.
        track: function that passes the volumes on, for a progress bar.

    Raises:
        ValueError: the atoms are not a crystal, there are too few points, or the energy has no
            minimum in the range of volumes.
    """
    if not is_crystal(atoms):
        raise ValueError(f"an equation of state needs a crystal; pbc is {atoms.pbc.tolist()}")
    if points < 5 or not 0 < extent < 0.5:
        raise ValueError(f"`points` is {points}, `extent` {extent}; use 5 or more, and 0.02 to 0.1")
    volumes = atoms.get_volume() * np.linspace(1 - extent, 1 + extent, points)
    energies = []
    for volume in track(volumes):
        strained = copy_atoms(atoms)
        strained.set_cell(atoms.cell * (volume / atoms.get_volume()) ** (1 / 3), True)
        if not fixed_positions:
            every = (True, True, True)
            moving: Any = (
                strained if fixed_shape else CellFilter(strained, every, constant_volume=True)
            )
            BFGS(moving, logfile=None).run(fmax=0.005, steps=200)
        energies.append(float(strained.get_potential_energy()))
    fit = fit_birch_murnaghan(volumes, energies)
    stretch = (fit.volume / atoms.get_volume()) ** (1 / 3)
    lattice = {
        name: float(value * (stretch if name in "abc" else 1.0))
        for name, value in atoms.cell.get_bravais_lattice().vars().items()
    }
    return EquationOfState(volumes, np.array(energies), fit, lattice, len(atoms))


def reference_atoms(reference: Mapping[str, Any]) -> int:
    """Atoms in the cell of the reference."""
    lowest: float = min(reference["eos"]["E"])
    return round(lowest / float(reference["e0_eV_per_atom"]))
