"""Elastic constants from stresses at small strains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from tesseral.calculators.properties.atoms import copy_atoms, is_crystal
from tesseral.calculators.properties.relaxation import relaxed

Floats = NDArray[np.float64]

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # Voigt order of ASE


class Elasticity(NamedTuple):
    """Elastic constants and derived moduli, GPa."""

    stiffness: Floats  # (6, 6) in Voigt order, symmetrised
    eigenvalues: Floats  # (6,) ascending; all positive in a stable crystal (Born)
    bulk_modulus: float  # Voigt average
    shear_modulus: float  # Voigt average
    asymmetry: float  # largest difference between C_ij and C_ji, an estimate of the error


def elastic_constants(
    atoms: Atoms,
    *,
    strains: tuple[float, ...] = (0.0025, 0.005),
    fmax: float = 1e-4,
    steps: int = 100,
) -> Elasticity:
    """Elastic constants from the stress at small strains, with the atoms relaxed in each cell.

    Each of the six strains is applied with both signs, so that the even terms of the stress
    cancel. The slope is a least-squares fit through all of them.

    Args:
        atoms: crystal at zero stress, with a calculator; not changed.
        strains: sizes of the strains; a shear counts as γ = 2 ε.
        fmax: convergence criterion of the relaxations: maximum force (eV/Å).
        steps: maximum number of steps per relaxation.

    Raises:
        ValueError: the atoms are not periodic in three directions.
    """
    if not is_crystal(atoms):
        raise ValueError(f"elastic constants need a crystal; pbc is {atoms.pbc.tolist()}")
    slopes = np.zeros((6, 6))
    for column, (i, j) in enumerate(PAIRS):
        products = np.zeros(6)
        for size in strains:
            for sign in (1.0, -1.0):
                strain = np.zeros((3, 3))
                strain[i, j] = strain[j, i] = sign * size * (1.0 if i == j else 0.5)
                products += sign * size * _stress(atoms, strain, fmax, steps)
        slopes[:, column] = products / (2 * np.square(strains).sum())
    stiffness = 0.5 * (slopes + slopes.T)
    diagonal, others = np.trace(stiffness[:3, :3]), stiffness[[0, 0, 1], [1, 2, 2]].sum()
    return Elasticity(
        stiffness=stiffness,
        eigenvalues=np.linalg.eigvalsh(stiffness),
        bulk_modulus=float(diagonal + 2 * others) / 9,
        shear_modulus=float(diagonal - others + 3 * np.trace(stiffness[3:, 3:])) / 15,
        asymmetry=float(np.abs(slopes - slopes.T).max()),
    )


def hill_averages(stiffness: Floats) -> dict[str, float]:
    """Moduli (GPa) and Poisson's ratio of a polycrystal, means of Voigt's and Reuss's bounds.

    Source: R. Hill, Proc. Phys. Soc. A 65, 349 (1952).

    Raises:
        ValueError: the crystal is unstable, so that the bounds do not exist.
    """
    if np.linalg.eigvalsh(stiffness)[0] <= 0:
        raise ValueError("the crystal is unstable against a strain: a stiffness is not positive")
    compliance = np.linalg.inv(stiffness)
    c, s = stiffness, compliance
    trace_c, others_c = np.trace(c[:3, :3]), c[[0, 0, 1], [1, 2, 2]].sum()
    trace_s, others_s = np.trace(s[:3, :3]), s[[0, 0, 1], [1, 2, 2]].sum()
    bulk = 0.5 * ((trace_c + 2 * others_c) / 9 + 1 / (trace_s + 2 * others_s))
    shear = 0.5 * (
        (trace_c - others_c + 3 * np.trace(c[3:, 3:])) / 15
        + 15 / (4 * trace_s - 4 * others_s + 3 * np.trace(s[3:, 3:]))
    )
    return {
        "bulk_modulus_GPa": float(bulk),
        "shear_modulus_GPa": float(shear),
        "young_modulus_GPa": float(9 * bulk * shear / (3 * bulk + shear)),
        "poisson_ratio": float((3 * bulk - 2 * shear) / (6 * bulk + 2 * shear)),
    }


def cubic_constants(stiffness: Floats) -> dict[str, float]:
    """C11, C12 and C44 of a cubic crystal with axes x, y and z, each an average of three values."""
    return {
        "C11": float(stiffness[:3, :3].diagonal().mean()),
        "C12": float(stiffness[[0, 0, 1], [1, 2, 2]].mean()),
        "C44": float(stiffness[3:, 3:].diagonal().mean()),
    }


def _stress(atoms: Atoms, strain: Floats, fmax: float, steps: int) -> Floats:
    """Stress (6,) GPa of a strained copy."""
    strained = copy_atoms(atoms)
    strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    if len(atoms) > 1:
        strained = relaxed(strained, fmax=fmax, steps=steps, cell="fixed").atoms
    stress: Floats = np.asarray(strained.get_stress(), dtype=np.float64) / units.GPa
    return stress
