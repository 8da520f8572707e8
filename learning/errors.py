"""Errors of a model on structures that have just been labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.structures import Structure, atoms_from_structure
from tesseral.training.uncertainty import calibration_errors


def errors_of(calculator: TesseralCalculator, structures: Sequence[Structure]) -> dict[str, Any]:
    """Errors of a model on labelled structures.

    Args:
        calculator: calculator of the model.
        structures: structures with energies and forces.

    Returns:
        ``forces_mae`` and ``forces_rmse`` (eV/Å, of components), ``energy_mae`` (meV/atom), the
        numbers of ``structures`` and ``atoms``, ``calibration`` of the expected force errors, and
        ``true`` and ``expected``, the lengths of the force error of each atom (eV/Å). Structures
        that the model cannot evaluate are left out and counted as ``not_evaluated``.
    """
    differences, expected, energies, owner = [], [], [], []
    for number, structure in enumerate(structures):
        atoms = atoms_from_structure(structure)
        try:
            calculator.calculate(atoms)
        except (ValueError, RuntimeError):
            continue
        results = calculator.results
        differences.append(results["forces"] - structure.forces)
        expected.append(results.get("forces_uncertainty", np.full(len(atoms), np.nan)))
        energies.append((results["energy"] - structure.energy) / len(atoms))
        owner += [number] * len(atoms)
    if not differences:
        raise ValueError("the model can evaluate none of the structures that were selected")
    error = np.concatenate(differences)
    true, foreseen = np.linalg.norm(error, axis=1), np.concatenate(expected)
    bound = calculator.card.uncertainty.get("bound")
    return {
        "structures": len(differences),
        "atoms": len(true),
        "not_evaluated": len(structures) - len(differences),
        "forces_mae": float(np.abs(error).mean()),
        "forces_rmse": float(np.sqrt(np.square(error).mean())),
        "energy_mae": 1000 * float(np.abs(energies).mean()),
        "calibration": None
        if bound is None
        else calibration_errors(foreseen, true, np.array(owner), float(bound)),
        "true": true.tolist(),
        "expected": foreseen.tolist(),
    }
