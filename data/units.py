"""Conversion of units, signs and Voigt orders.

Inside tesseral: Å, eV, eV/Å, and stress as a (3, 3) tensor ``+dE/dε / V`` in eV/Å³, positive
under tension. The virial is ``-V · stress`` in eV.
"""

from __future__ import annotations

import numpy as np
from ase import data as ase_data
from ase import units as ase_units
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": ase_units.Hartree,
    "Ry": ase_units.Rydberg,
    "kcal/mol": ase_units.kcal / ase_units.mol,
    "kJ/mol": ase_units.kJ / ase_units.mol,
}
LENGTH_UNITS = {"Å": 1.0, "A": 1.0, "Bohr": ase_units.Bohr, "nm": 10.0}
FORCE_UNITS = {
    "eV/Å": 1.0,
    "eV/A": 1.0,
    "meV/A": 1e-3,
    "Ha/Bohr": ase_units.Hartree / ase_units.Bohr,
    "Ha/A": ase_units.Hartree,
    "Ry/Bohr": ase_units.Rydberg / ase_units.Bohr,
    "kcal/mol/A": ase_units.kcal / ase_units.mol,
    "kJ/mol/A": ase_units.kJ / ase_units.mol,
}
STRESS_UNITS = {
    "eV/Å³": 1.0,
    "eV/A^3": 1.0,
    "Pa": 1e-9 * ase_units.GPa,
    "GPa": ase_units.GPa,
    "kbar": 0.1 * ase_units.GPa,
    "bar": 1e-4 * ase_units.GPa,
    "Ry/Bohr^3": ase_units.Rydberg / ase_units.Bohr**3,
    "Ha/Bohr^3": ase_units.Hartree / ase_units.Bohr**3,
}
VOIGT_ORDERS = {
    "ase": ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)),
    "lammps": ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)),
    "vasp": ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)),
}

EV_PER_A3_IN_GPA = 1.0 / ase_units.GPa


def unit_factor(table: dict[str, float], name: str) -> float:
    """Factor that converts a value in unit ``name`` to tesseral's unit.

    Raises:
        ValueError: the unit is not in the table; the message lists the known units.
    """
    if name not in table:
        raise ValueError(f"unknown unit {name!r}; use one of {', '.join(table)}")
    return table[name]


def stress_tensor(stress: ArrayLike, order: str = "ase", precision: float = 0.0) -> Array:
    """Symmetric (3, 3) tensor from 6 Voigt components, 9 numbers or a (3, 3) array.

    Args:
        stress: (6,), (9,) or (3, 3); units and sign are not changed.
        order: Voigt order of six components: ``ase``, ``lammps`` or ``vasp``.
        precision: difference of two components that is only rounding, in the unit of the stress.

    Raises:
        ValueError: the shape or the order is unknown, or the tensor is not symmetric.
    """
    values = np.asarray(stress, dtype=np.float64)
    if values.size == 9:
        tensor = values.reshape(3, 3)
        scale = max(float(np.abs(tensor).max()), 1e-6)
        if float(np.abs(tensor - tensor.T).max()) > max(1e-3 * scale, precision):
            raise ValueError(f"the stress tensor is not symmetric:\n{tensor}")
        symmetric: Array = 0.5 * (tensor + tensor.T)
        return symmetric
    if values.shape != (6,):
        raise ValueError(f"a stress has 6 Voigt components or 3 × 3; found shape {values.shape}")
    if order not in VOIGT_ORDERS:
        raise ValueError(f"Voigt order {order!r} is not one of {', '.join(VOIGT_ORDERS)}")
    tensor = np.empty((3, 3))
    for value, (i, j) in zip(values, VOIGT_ORDERS[order], strict=True):
        tensor[i, j] = tensor[j, i] = value
    return tensor


def stress_voigt(tensor: ArrayLike, order: str = "ase") -> Array:
    """The 6 Voigt components of a (3, 3) stress tensor in the given order."""
    values = np.asarray(tensor, dtype=np.float64)
    return np.array([values[i, j] for i, j in VOIGT_ORDERS[order]])


COULOMB_IN_EV_A = ase_units.Hartree * ase_units.Bohr  # e² / 4πε0
BOHR_IN_A = ase_units.Bohr


def covalent_radius(number: int) -> float:
    """Covalent radius in Å of an element by atomic number (Cordero et al. 2008, from ASE)."""
    return float(ase_data.covalent_radii[number])
