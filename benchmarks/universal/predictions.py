"""Predictions of the programs, made once for each file and model, and their differences."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from benchmarks.workers import Job, Specification, workers

Array = NDArray[np.float64]
FACTORIES = "benchmarks.universal.calculators:"


class Predictions(NamedTuple):
    """Predictions of a program for S structures with N atoms in total."""

    energy: Array  # (S,) eV
    forces: Array  # (N, 3) eV/Å
    stress: Array  # (S, 6) eV/Å³ in ASE order; NaN without a periodic cell


class Difference(NamedTuple):
    """Differences between two predictions by structure (S,); NaN without a stress."""

    energy: Array  # meV/atom
    forces: Array  # meV/Å, the largest component
    stress: Array  # GPa, the largest component


def predict(specification: Specification, structures: Path, folder: Path) -> Predictions:
    """Predictions of a program.

    Predictions of the peers are saved in ``folder`` under a hash of everything they depend on. Ours
    depend on the code too and are always computed again.

    Args:
        specification: a factory of ``calculators`` and its arguments, where ``path`` is a model.
        structures: file to predict.
        folder: folder of saved predictions.

    Raises:
        SystemExit: the program could not be started.
        RuntimeError: the program failed.
    """
    kept = folder / "predictions" / f"{_key(specification, structures)}.npz"
    if not kept.exists() or specification.python == sys.executable:
        job = Job("predict", "predict", {"structures": _text(structures), "output": _text(kept)})
        with workers([specification], folder / "logs") as (worker,):
            answer = worker.call(job, 0.0)
        if "error" in answer:
            raise RuntimeError(
                f"{specification.name} failed on {structures}: {answer['error']}; see {worker.log}"
            )
    with np.load(kept) as found:
        return Predictions(found["energy"], found["forces"], found["stress"])


def difference(structures: Sequence[Atoms], one: Predictions, other: Predictions) -> Difference:
    """Absolute differences between two predictions for the same structures."""
    n_atoms = np.array([len(atoms) for atoms in structures])
    starts = np.concatenate([[0], n_atoms.cumsum()[:-1]])
    forces = np.abs(one.forces - other.forces).max(axis=1)
    return Difference(
        energy=1e3 * np.abs(one.energy - other.energy) / n_atoms,
        forces=1e3 * np.maximum.reduceat(forces, starts),
        stress=np.abs(one.stress - other.stress).max(axis=1) / units.GPa,
    )


def _key(specification: Specification, structures: Path) -> str:
    """Hash of the bytes of the structures, the program and its arguments."""
    words = [specification.factory, specification.python, specification.arguments]
    content = json.dumps(words, sort_keys=True).encode() + structures.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _text(path: Path) -> str:
    return str(path.resolve())
