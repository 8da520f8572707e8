"""Training and test files, with the same structures for all programs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.io import write

from benchmarks.accuracy.recipes import Recipe
from tesseral.data.sources import opening


class Files(NamedTuple):
    """Files written by ``write_files``."""

    fit: Path
    validation: Path
    tests: dict[str, Path]
    profiles: dict[str, Path]
    elements: tuple[str, ...]  # indices in the training file, sorted
    isolated: dict[str, float]  # eV, by element; empty if none are given
    structures: int  # to fit
    atoms: int  # to fit


def split(
    number: int, validation: int, seed: int, structures: int | None = None
) -> tuple[list[int], list[int]]:
    """Training and validation structures: two sorted lists of indices without overlap.

    Args:
        number: number of all structures.
        validation: number of validation structures.
        seed: random seed.
        structures: number of training structures. Default: all others.

    Raises:
        ValueError: there are too few structures.
    """
    end = number if structures is None else validation + structures
    if not validation < end <= number:
        raise ValueError(
            f"{validation} structures to validate on leave {number - validation} of {number} to "
            "fit; ask for fewer"
        )
    order = np.random.default_rng(seed).permutation(number)
    return sorted(order[validation:end].tolist()), sorted(order[:validation].tolist())


def of_groups(frames: list[Atoms], groups: tuple[str, ...], path: Path) -> list[Atoms]:
    """The structures whose key ``group`` begins with one of these texts; all if there are none.

    Raises:
        ValueError: there is no such structure.
    """
    chosen = [f for f in frames if not groups or str(f.info.get("group")).startswith(groups)]
    if not chosen:
        raise ValueError(f"{path} has no structure of a group {' or '.join(groups)}")
    return chosen


def check_files(recipe: Recipe, data: Path) -> None:
    """Check that the data folder is complete.

    Raises:
        FileNotFoundError: a file is missing; the message says what to do.
    """
    for file in recipe.files:
        if not (data / file).is_file():
            raise FileNotFoundError(
                f"{recipe.name} needs {data / file}, which does not exist; give the folder of the "
                "data with --data or TESSERAL_DATA"
            )


def write_files(recipe: Recipe, data: Path, folder: Path) -> Files:
    """Split the training file and write all structures as extxyz.

    Raises:
        FileNotFoundError: the data do not exist.
        ValueError: they cannot be split as requested.
    """
    check_files(recipe, data)
    folder.mkdir(parents=True, exist_ok=True)
    frames = read_frames(data / recipe.train)
    if recipe.groups:
        chosen, held_out = (
            of_groups(frames, recipe.groups[part], data / recipe.train)
            for part in ("train", "validation")
        )
    else:
        parts = split(len(frames), recipe.validation, recipe.seed, recipe.structures)
        chosen, held_out = ([frames[i] for i in part] for part in parts)
    sources = {
        name: of_groups(read_frames(data / file), recipe.groups.get(name, ()), data / file)
        for name, file in recipe.tests.items()
    }
    paths = {name: read_frames(data / one.file) for name, one in recipe.profiles.items()}
    isolated: dict[str, float] = {}
    if recipe.isolated:
        for atoms in read_frames(data / recipe.isolated):
            isolated[atoms.get_chemical_symbols()[0]] = float(atoms.get_potential_energy())
    return Files(
        fit=write_frames(chosen, folder / "fit.xyz", recipe.stress),
        validation=write_frames(held_out, folder / "validation.xyz", recipe.stress),
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
    return list(opening.read_frames(path))


def write_frames(frames: list[Atoms], path: Path, stress: bool) -> Path:
    """Write structures with labels under the names that each program expects.

    NequIP, SevenNet and our program read the names of ASE; MACE has its own names. Stress is
    written only on request, so that no program trains on it unintentionally.
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
