"""Datasets: the objects of the HDF5 file, their values, and its bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.faults.kinds.common import write_data, write_model
from benchmarks.faults.mutations import damaged_bytes, damaged_json, pick
from benchmarks.faults.running import Case, Kind, Refused, command
from tesseral import open_store

DTYPES = ("i1", "u1", "<i4", "<i8", "<u8", "<f4", "<f8", ">f8", "c16", "S3", "?", "V4")
SPECIAL = (np.nan, np.inf, -np.inf, 0, -1, 1, 2, 118, 119, 255, 1e9, 2**40, -(2**40), 1e300, 1e-300)


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
        what = _object(rng, path)
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


def _object(rng: np.random.Generator, path: Path) -> str:
    """Change one object of the file; returns a description."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        if rng.random() < 0.2:
            return _attribute(rng, file)
        name = pick(rng, names)
        if not isinstance(file[name], h5py.Dataset) or rng.random() < 0.15:
            return f"{name} {_replaced(rng, file, name)}"
        values = file[name][()]
        changes = (_dtype, _dtype, _rows, _rows, _shape, _values, _values, _values, _shuffle)
        what, changed = pick(rng, changes)(rng, values)
        del file[name]
        try:
            file[name] = changed
        except (TypeError, ValueError):
            file[name] = np.asarray(changed).astype("S20")
        return f"{name} {what}"


def _replaced(rng: np.random.Generator, file: h5py.File, name: str) -> str:
    """Delete an object or put one of another kind in its place."""
    del file[name]
    what = pick(rng, ("deleted", "deleted", "group", "soft", "loop", "external", "scalar", "null"))
    if what == "group":
        file.create_group(name)
    elif what == "soft":
        file[name] = h5py.SoftLink("/nowhere")
    elif what == "loop":
        file[name] = h5py.SoftLink(f"/{name}")
    elif what == "external":
        file[name] = h5py.ExternalLink("nowhere.h5", "/x")
    elif what == "scalar":
        file[name] = pick(rng, (1, 1.5, "text", np.nan))
    elif what == "null":
        file[name] = h5py.Empty("f8")
    return f"is {what}"


def _attribute(rng: np.random.Generator, file: h5py.File) -> str:
    """Delete or change an attribute."""
    name = pick(rng, sorted(file.attrs))
    if rng.random() < 0.2:
        del file.attrs[name]
        return f"attribute {name} deleted"
    if name == "units" and rng.random() < 0.5:
        what, text = damaged_json(rng, file.attrs[name])
        file.attrs[name] = text.encode("utf-8", "replace")
        return f"attribute units {what}"
    values = (1, -1, 2.5, np.nan, 10**15, "", "x", b"\xff\xfe", np.arange(3), np.zeros((2, 2)))
    value = pick(rng, (*values, np.array([], dtype="i8"), np.array(["a"], dtype="S"), 1 + 2j))
    if isinstance(value, np.ndarray) and name == "elements":
        value = pick(rng, (value, np.array([13, 13]), np.array([0]), np.array([29, 300])))
    file.attrs[name] = value
    return f"attribute {name} is {value!r}"


def _dtype(rng: np.random.Generator, values: Any) -> tuple[str, Any]:
    name = pick(rng, DTYPES)
    array = np.asarray(values)
    try:
        with np.errstate(all="ignore"):
            return f"as {name}", array.astype(name)
    except (ValueError, TypeError):
        return f"as {name} zeros", np.zeros(array.shape, dtype=name)


def _rows(rng: np.random.Generator, values: Any) -> tuple[str, Any]:
    array = np.asarray(values)
    what = pick(rng, ("one less", "empty", "first", "one more", "double", "half"))
    made = {
        "one less": array[:-1],
        "empty": array[:0],
        "first": array[:1],
        "one more": np.concatenate([array, array[-1:]]),
        "double": np.concatenate([array, array]),
        "half": array[: len(array) // 2],
    }
    return what, made[what]


def _shape(rng: np.random.Generator, values: Any) -> tuple[str, Any]:
    array = np.asarray(values)
    what = pick(rng, ("flat", "axis", "column", "transposed", "scalar"))
    made: dict[str, Any] = {
        "flat": array.reshape(-1),
        "axis": array[None],
        "column": array[..., None],
        "transposed": array.T,
        "scalar": array.reshape(-1)[0] if array.size else 0,
    }
    return what, made[what]


def _values(rng: np.random.Generator, values: Any) -> tuple[str, Any]:
    array = np.array(values)
    if array.dtype.kind not in "iuf" or not array.size:
        return "emptied", array[:0]
    value = pick(rng, SPECIAL)
    if array.dtype.kind != "f":
        value = 0 if not np.isfinite(value) else int(value) % 2**31
    count = pick(rng, (1, 1, 3, array.size))
    places = rng.integers(array.size, size=count) if count < array.size else slice(None)
    with np.errstate(all="ignore"):
        array.reshape(-1)[places] = np.asarray(value).astype(array.dtype)
    return f"with {count} values of {value}", array


def _shuffle(rng: np.random.Generator, values: Any) -> tuple[str, Any]:
    array = np.array(values)
    what = pick(rng, ("reversed", "shuffled", "noise", "shifted"))
    if what == "reversed":
        array = array[::-1].copy()
    elif what == "shuffled":
        array = rng.permutation(array)
    elif what == "shifted" and array.dtype.kind in "iuf":
        array = array + np.ones(1, array.dtype)
    elif array.dtype.kind in "iuf":
        size = array.nbytes
        raw = rng.integers(0, 256, size=size, dtype=np.uint8).tobytes()
        array = np.frombuffer(raw, dtype=array.dtype).reshape(array.shape)
    return what, array


KIND = Kind("stores", prepare, case, 3)
