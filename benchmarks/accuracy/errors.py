"""Errors of predictions for a file of structures, computed in the same way for all programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import units
from numpy.typing import NDArray

from benchmarks.accuracy.structures import read_frames

Array = NDArray[np.float64]


def statistics(name: str, differences: Array, factor: float) -> dict[str, float]:
    """MAE and RMSE of all numbers."""
    scaled = factor * differences.ravel()
    return {
        f"{name}_mae": float(np.abs(scaled).mean()),
        f"{name}_rmse": float(np.sqrt(np.square(scaled).mean())),
    }


def errors(structures: Path, predictions: Path) -> dict[str, float]:
    """Errors by name (see ``recipes.ERRORS``) for the labels that the structures have.

    Energies per atom (meV) and per structure (meV), components of forces (meV/Å), six components of
    stress (GPa). Nothing is fitted or shifted.

    Args:
        structures: extxyz file.
        predictions: file written by ``predict`` for these structures.

    Raises:
        ValueError: predictions are not finite.
    """
    frames = read_frames(structures)
    found = np.load(predictions)
    results = [frame.calc.results for frame in frames]
    n_atoms = np.array([len(frame) for frame in frames])
    energy = found["energy"] - np.array([result["energy"] for result in results])
    values = statistics("energy", energy / n_atoms, 1e3)
    values |= statistics("molecule_energy", energy, 1e3)
    if "forces" in results[0]:
        forces = found["forces"] - np.concatenate([result["forces"] for result in results])
        values |= statistics("forces", forces, 1e3)
    if "stress" in results[0]:
        stress = found["stress"] - np.array([result["stress"] for result in results])
        values |= statistics("stress", stress, 1 / units.GPa)
    if not all(np.isfinite(list(values.values()))):
        raise ValueError(f"the predictions {predictions} are not finite; the training diverged")
    return values


def profile(
    structures: Path, predictions: Path, coordinate: str | None
) -> tuple[list[float], list[float], list[float]]:
    """Energies along a path, sorted by its coordinate, relative to the lowest DFT structure.

    Args:
        structures: extxyz file.
        predictions: file written by ``predict`` for these structures.
        coordinate: key of the coordinate; None for the index in the file.

    Returns:
        Coordinates, DFT energies and predicted energies in meV.
    """
    frames = read_frames(structures)
    where = [
        float(number if coordinate is None else frame.info[coordinate])
        for number, frame in enumerate(frames)
    ]
    order = np.argsort(where)
    dft = np.array([frame.get_potential_energy() for frame in frames])
    lowest = int(dft.argmin())
    energy = np.load(predictions)["energy"]
    relative = [1e3 * (values - values[lowest])[order] for values in (dft, energy)]
    return [where[i] for i in order], relative[0].tolist(), relative[1].tolist()
