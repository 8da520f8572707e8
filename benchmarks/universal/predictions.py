"""Predictions of the programs, made once for each file and model, and how far they are apart."""

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
    """What a program says about S structures of N atoms in all."""

    energy: Array  # (S,) eV
    forces: Array  # (N, 3) eV/Å
    stress: Array  # (S, 6) eV/Å³ in ASE's order; NaN without a periodic cell


class Difference(NamedTuple):
    """Two predictions apart, by structure (S,); NaN where there is no stress."""

    energy: Array  # meV/atom
    forces: Array  # meV/Å, the largest component
    stress: Array  # GPa, the largest component


def predict(specification: Specification, structures: Path, folder: Path) -> Predictions:
    """What a program predicts.

    That of the peers is kept in ``folder`` under a hash of all it depends on; ours, which depends
    on the code too, is computed again.

    Args:
        specification: a factory of ``calculators`` and its arguments, where ``path`` is a model.
        structures: file to predict.
        folder: of what is kept.

    Raises:
        SystemExit: the program could not be started.
        RuntimeError: it failed.
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
    """How far two predictions of the same structures are apart, in absolute values."""
    n_atoms = np.array([len(atoms) for atoms in structures])
    starts = np.concatenate([[0], n_atoms.cumsum()[:-1]])
    forces = np.abs(one.forces - other.forces).max(axis=1)
    return Difference(
        energy=1e3 * np.abs(one.energy - other.energy) / n_atoms,
        forces=1e3 * np.maximum.reduceat(forces, starts),
        stress=np.abs(one.stress - other.stress).max(axis=1) / units.GPa,
    )


def _key(specification: Specification, structures: Path) -> str:
    """Of the structures' bytes, the program and its arguments."""
    words = [specification.factory, specification.python, specification.arguments]
    content = json.dumps(words, sort_keys=True).encode() + structures.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _text(path: Path) -> str:
    return str(path.resolve())
