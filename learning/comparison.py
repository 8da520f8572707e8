"""A distilled model beside its teacher: errors, lattice, elastic constants, speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from numpy.typing import NDArray

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.mean import MeanCalculator
from tesseral.calculators.properties.atoms import is_bulk
from tesseral.calculators.properties.elastic import cubic_constants, elastic_constants
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model
from tesseral.training.evaluate import evaluate

REPEATS = 10  # of the evaluation that is timed
CUBIC = 0.02  # of C11, largest deviation from the stiffness of a cubic crystal
EQUAL = 1e-3  # relative difference of lattice vectors of equal length


def compare(
    model: Path,
    teachers: Sequence[Path],
    small: Sequence[Atoms],
    large: Sequence[Atoms],
    test: Path,
    device: str = "cpu",
) -> dict[str, Any]:
    """Compare a model with its teacher.

    Args:
        model: model file.
        teachers: model files of the teacher, which is their mean.
        small: structures, for the properties of crystals.
        large: supercells; the largest one is timed.
        test: dataset file with the teacher's labels.
        device: device of both for the time; properties are computed in float64 on the CPU.

    Returns:
        ``errors`` on the test set as `evaluate` returns them; ``properties``, a list of
        dictionaries with ``structure``, ``quantity``, ``unit``, ``teacher``, ``model`` and
        ``difference`` (percent), NaN if the crystal is not stable in the model; ``microseconds``
        per atom of ``teacher`` and ``model``.
    """
    potential, card = load_model(model)
    errors = evaluate(potential, open_store(test), card.elements).errors
    exact = {
        "teacher": MeanCalculator(teachers, device="cpu", dtype="float64"),
        "model": TesseralCalculator(model, device="cpu", dtype="float64"),
    }
    rows: list[dict[str, Any]] = []
    for atoms in filter(is_bulk, small):
        known = crystal_properties(atoms, exact["teacher"])
        try:
            found = crystal_properties(atoms, exact["model"])
        except (ValueError, ArithmeticError, CalculationFailed):  # it does not hold together
            found = {}
        for (quantity, unit), value in known.items():
            other = found.get((quantity, unit), float("nan"))
            rows.append(
                {
                    "structure": atoms.info.get("name", ""),
                    "quantity": quantity,
                    "unit": unit,
                    "teacher": value,
                    "model": other,
                    "difference": 100 * (other / value - 1),
                }
            )
    largest = max(large, key=len)
    times = {
        "teacher": microseconds(largest, MeanCalculator(teachers, device=device)),
        "model": microseconds(largest, TesseralCalculator(model, device=device)),
    }
    return {"errors": errors, "properties": rows, "microseconds": times}


def crystal_properties(atoms: Atoms, calculator: BaseCalculator) -> dict[tuple[str, str], float]:
    """Lattice and elastic constants of a relaxed crystal, by name and unit.

    C11, C12 and C44 are given if the crystal is cubic with axes x, y and z; the moduli are Voigt
    averages.
    """
    copy = atoms.copy()
    copy.calc = calculator
    crystal = relaxed(copy, fmax=1e-3, steps=300).atoms
    found = {
        (name, "Å"): float(length)
        for name, length, first in _different(crystal.cell.lengths())
        if first
    }
    found["volume", "Å³/atom"] = float(crystal.get_volume()) / len(crystal)
    elasticity = elastic_constants(crystal, fmax=1e-3)
    cubic = cubic_constants(elasticity.stiffness)
    if np.abs(elasticity.stiffness - _cubic(**cubic)).max() < CUBIC * cubic["C11"]:
        found |= {(name, "GPa"): value for name, value in cubic.items()}
    found["bulk modulus", "GPa"] = elasticity.bulk_modulus
    found["shear modulus", "GPa"] = elasticity.shear_modulus
    return found


def _different(lengths: NDArray[np.float64]) -> list[tuple[str, float, bool]]:
    """Names of lattice vectors, their lengths, and whether none before has the same length."""
    first = [
        not any(abs(length / other - 1) < EQUAL for other in lengths[:number])
        for number, length in enumerate(lengths)
    ]
    return list(zip("abc", lengths.tolist(), first, strict=True))


def _cubic(C11: float, C12: float, C44: float) -> NDArray[np.float64]:  # noqa: N803
    """Stiffness (6, 6) of a cubic crystal."""
    stiffness = np.diag([C11] * 3 + [C44] * 3)
    stiffness[:3, :3] += C12 * (1 - np.eye(3))
    return stiffness


def microseconds(atoms: Atoms, calculator: BaseCalculator) -> float:
    """Time of energies and forces in a step of dynamics, µs/atom, the least of some steps."""
    trial = atoms.copy()
    trial.calc = calculator
    rng = np.random.default_rng(0)
    spent = []
    for _ in range(REPEATS + 1):
        trial.positions += 0.005 * rng.normal(size=trial.positions.shape)
        begin = time.perf_counter()
        trial.get_forces()
        spent.append(time.perf_counter() - begin)
    return 1e6 * min(spent[1:]) / len(atoms)
