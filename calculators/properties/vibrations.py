"""Vibrations of a molecule."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray
from scipy.linalg import null_space

from tesseral.calculators.properties.hessian import hessian

Floats = NDArray[np.float64]

PER_CM = units.invcm  # eV


class Vibrations(NamedTuple):
    """Normal modes without translations and rotations."""

    frequencies: Floats  # (M,) cm⁻¹ ascending; negative if the mode is unstable
    asymmetry: float  # eV/Å², largest difference between the Hessian and its transpose

    @property
    def zero_point_energy(self) -> float:
        """Zero-point energy of the stable modes, eV."""
        return 0.5 * PER_CM * float(self.frequencies[self.frequencies > 0].sum())


def vibrations(atoms: Atoms, *, step: float | None = None) -> Vibrations:
    """Harmonic frequencies at a relaxed geometry, in vacuum.

    Args:
        atoms: relaxed molecule with a calculator; not changed.
        step: displacement (Å) of the central differences. Default: see ``hessian``.

    Raises:
        ValueError: fewer than two atoms.
    """
    if len(atoms) < 2:
        raise ValueError("a single atom does not vibrate; give a molecule")
    found = hessian(atoms, step=step)
    masses = np.repeat(np.sqrt(atoms.get_masses()), 3)
    weighted = 0.5 * (found + found.T) / np.outer(masses, masses)
    basis = null_space(_rigid_motions(atoms).T)  # (3n, M), orthogonal to rigid motions
    squares = np.linalg.eigvalsh(basis.T @ weighted @ basis)
    quantum = units._hbar * 1e10 / np.sqrt(units._e * units._amu)  # eV for sqrt(eV/Å²/amu)
    frequencies = np.sign(squares) * np.sqrt(np.abs(squares)) * quantum / PER_CM
    return Vibrations(frequencies, float(np.abs(found - found.T).max()))


def _rigid_motions(atoms: Atoms) -> Floats:
    """Orthonormal translations and rotations in mass-weighted coordinates, (3n, 6), or 5 columns.

    A linear molecule has only two rotations.
    """
    masses = np.sqrt(atoms.get_masses())[:, None]
    offsets = atoms.positions - atoms.get_center_of_mass()
    motions = [(masses * np.eye(3)[axis]).ravel() for axis in range(3)]
    motions += [(masses * np.cross(np.eye(3)[axis], offsets)).ravel() for axis in range(3)]
    left, sizes, _ = np.linalg.svd(np.array(motions).T, full_matrices=False)
    rigid: Floats = left[:, sizes > 1e-3 * sizes[0]]
    return rigid
