"""Datasets: the objects of the HDF5 file, their values, and its bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.arrays import damaged_hdf5
from benchmarks.faults.kinds.common import write_data, write_model
from benchmarks.faults.mutations import damaged_bytes, pick
from benchmarks.faults.running import Case, Kind, Refused, command
from tesseral import open_store


def prepare(samples: Path) -> Mapping[str, Any]:
    """A dataset of 12 structures and a model; numbers of each action."""
    write_data(samples / "good.h5")
    write_model(samples / "model.safetensors")
    return {name: act(samples / "good.h5", samples) for name, act in ACTIONS.items()}


def case(rng: np.random.Generator, samples: Path) -> Case:
    """A damaged dataset, used by a command or as by a script."""
    path = Path("set.h5")
    shutil.copy(samples / "good.h5", path)
    if rng.random() < 0.25:
        what, data = damaged_bytes(rng, path.read_bytes())
        path.write_bytes(data)
    else:
        what = damaged_hdf5(rng, path)
    shares = {"read": 8, "evaluate": 8, "check": 1, "verify": 4, "merge": 4, "fit": 1}
    names = [name for name in ACTIONS for _ in range(shares.get(name, 1))]
    name = pick(rng, names)

    def why() -> str:
        return "data verify finds it" if name != "verify" and _verify_refuses(path) else ""

    return Case(f"{name}: {what}", lambda: ACTIONS[name](path, samples), name, why)


def _verify_refuses(path: Path) -> bool:
    try:
        command("data", "verify", path)
    except Refused:
        return True
    return False


def read(path: Path, samples: Path) -> Any:
    """Everything a script can read, one by one and in blocks."""
    store = open_store(path)
    rows: list[Any] = [len(store), list(store.elements), store.n_atoms.tolist()]
    rows += [store.energies.tolist(), store.pbc.tolist(), store.compositions().tolist()]
    for structure in (store[-1], *store):
        arrays = structure.numbers, structure.positions, structure.cell, structure.pbc
        labels = structure.forces, structure.stress
        rows.append([float(np.asarray(part, dtype=float).sum()) for part in (*arrays, *labels)])
        rows.append([structure.energy, structure.config_type, structure.group, structure.source])
    store.close()
    return rows


def evaluate(path: Path, samples: Path) -> Any:
    """Errors of a model on the dataset."""
    command("evaluate", samples / "model.safetensors", path, "--json", "errors.json")
    errors = json.loads(Path("errors.json").read_text("utf-8"))
    return {key: value for key, value in errors.items() if key not in ("model", "data")}


def check(path: Path, samples: Path) -> Any:
    """Status and findings of ``data check``."""
    status = command("data", "check", path, "--json", "check.json")
    return status


def verify(path: Path, samples: Path) -> Any:
    """Status of ``data verify``, and the values that it found intact."""
    command("data", "verify", path)
    return read(path, samples)


def merge(path: Path, samples: Path) -> Any:
    """Content of the merged dataset."""
    command("data", "merge", path, samples / "good.h5", "-o", "all.h5")
    return read(Path("all.h5"), samples)


def fit(path: Path, samples: Path) -> Any:
    """Status of a training of one step."""
    return command(
        *("fit", "--data.train", path, "--output", "m.safetensors", "--trainer.max_steps", 1),
        *("--model.channels", 4, "--model.l_max", 1, "--data.workers", 0),
    )


ACTIONS: dict[str, Callable[[Path, Path], Any]] = {
    "read": read,
    "evaluate": evaluate,
    "check": check,
    "verify": verify,
    "merge": merge,
    "fit": fit,
}


KIND = Kind("stores", prepare, case, 3)
