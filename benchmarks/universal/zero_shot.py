"""Errors against DFT (mlearn test sets) of a universal potential and its converted form."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from rich.console import Console

from benchmarks.accuracy.structures import read_frames
from benchmarks.sheets import Sheet, save
from benchmarks.universal.predictions import Predictions, predict
from benchmarks.universal.programs import ours, peer

SETS = ("Si", "Mo", "Li")


def mlearn(options: argparse.Namespace, name: str) -> Path:
    """A file of the mlearn data.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path: Path = options.data / "mlearn" / f"{name}.extxyz"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; give the folder of the data with --data or TESSERAL_DATA"
        )
    return path


def errors(frames: list[Atoms], found: Predictions) -> tuple[float, float, float]:
    """MAE of energy (meV/atom), forces (meV/Å) and stress (GPa) against the labels.

    The zero of energy differs between sets of DFT calculations: an energy per atom, fitted to the
    set by least squares, is subtracted.
    """
    results = [frame.calc.results for frame in frames]
    n_atoms = np.array([len(frame) for frame in frames], dtype=float)
    energy = found.energy - np.array([result["energy"] for result in results])
    energy -= n_atoms * (n_atoms @ energy) / (n_atoms @ n_atoms)
    forces = found.forces - np.concatenate([result["forces"] for result in results])
    stress = found.stress - np.array([result["stress"] for result in results])
    return (
        float(1e3 * np.abs(energy / n_atoms).mean()),
        float(1e3 * np.abs(forces).mean()),
        float(np.abs(stress).mean() / units.GPa),
    )


def zero_shot_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Predict the test sets with both programs."""
    sheet = Sheet(
        "mlearn test sets, MAE against DFT, without training on them",
        ("set", "potential", "energy, meV/atom", "forces, meV/Å", "stress, GPa"),
        "One energy per atom and set, fitted to the set, is subtracted.",
    )
    numbers = {}
    for name in SETS:
        path = mlearn(options, f"{name}_test")
        frames = read_frames(path)
        for program in (peer(options, "sevennet"), ours(options)):
            found = errors(frames, predict(program, path, options.output))
            numbers[f"{name}, {program.name}"] = found
            sheet.rows.append((name, program.name, *(f"{value:.5g}" for value in found)))
    save(options.output / "zero_shot.json", numbers)
    return [sheet]
