"""The files that the programs train and are tested on, the same structures for all."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.io import read, write

from benchmarks.accuracy.recipes import Recipe


class Files(NamedTuple):
    """What ``write_files`` wrote."""

    fit: Path
    validation: Path
    tests: dict[str, Path]
    profiles: dict[str, Path]
    elements: tuple[str, ...]  # of the training file, sorted
    isolated: dict[str, float]  # eV, by element; empty where none are given
    structures: int  # to fit
    atoms: int  # to fit


def split(number: int, validation: int, seed: int) -> tuple[list[int], list[int]]:
    """Structures to fit and to validate on: two sorted lists without a common member.

    Args:
        number: of all structures.
        validation: of those to validate on.
        seed: the same seed gives the same lists.

    Raises:
        ValueError: nothing would be left to fit.
    """
    if validation >= number:
        raise ValueError(
            f"{validation} structures to validate on leave none of {number} to fit; ask for fewer"
        )
    order = np.random.default_rng(seed).permutation(number)
    return sorted(order[validation:].tolist()), sorted(order[:validation].tolist())


def check_files(recipe: Recipe, data: Path) -> None:
    """Refuse a data folder that lacks something.

    Raises:
        FileNotFoundError: which file is not there, and what to do.
    """
    for file in recipe.files:
        if not (data / file).is_file():
            raise FileNotFoundError(
                f"{recipe.name} needs {data / file}, which is not there; give the folder of the "
                "data with --data or TESSERAL_DATA"
            )


def write_files(recipe: Recipe, data: Path, folder: Path) -> Files:
    """Divide the training file and write everything as extxyz.

    Raises:
        FileNotFoundError: the data are not there.
        ValueError: they cannot be divided as asked.
    """
    check_files(recipe, data)
    folder.mkdir(parents=True, exist_ok=True)
    frames = read_frames(data / recipe.train)
    fit, validation = split(len(frames), recipe.validation, recipe.seed)
    sources = {name: read_frames(data / file) for name, file in recipe.tests.items()}
    paths = {name: read_frames(data / one.file) for name, one in recipe.profiles.items()}
    isolated: dict[str, float] = {}
    if recipe.isolated:
        for atoms in read_frames(data / recipe.isolated):
            isolated[atoms.get_chemical_symbols()[0]] = float(atoms.get_potential_energy())
    chosen = [frames[i] for i in fit]
    return Files(
        fit=write_frames(chosen, folder / "fit.xyz", recipe.stress),
        validation=write_frames(
            [frames[i] for i in validation], folder / "validation.xyz", recipe.stress
        ),
        tests={
            name: write_frames(some, folder / f"test_{name}.xyz", recipe.stress)
            for name, some in sources.items()
        },
        profiles={
            name: write_frames(some, folder / f"profile_{name}.xyz", False)
            for name, some in paths.items()
        },
        elements=tuple(sorted({symbol for atoms in frames for symbol in atoms.symbols})),
        isolated=isolated,
        structures=len(chosen),
        atoms=sum(len(atoms) for atoms in chosen),
    )


def read_frames(path: Path) -> list[Atoms]:
    """All structures of a file."""
    frames = read(path, ":")
    return frames if isinstance(frames, list) else [frames]


def write_frames(frames: list[Atoms], path: Path, stress: bool) -> Path:
    """Write structures with labels where every program looks for them.

    ASE's names are read by NequIP, SevenNet and us; MACE has names of its own. Stress is left out
    unless asked for, so that nobody trains on it unawares.
    """
    prepared = []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = frame.calc
        results = atoms.calc.results
        if not stress:
            results.pop("stress", None)
        atoms.info["REF_energy"] = results["energy"]
        if "forces" in results:
            atoms.arrays["REF_forces"] = results["forces"]
        if "stress" in results:
            atoms.info["REF_stress"] = results["stress"]
        prepared.append(atoms)
    write(path, prepared, format="extxyz")
    return path.resolve()
