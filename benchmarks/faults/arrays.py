"""Random damage to the arrays and objects of HDF5 and npz files; each function says what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.faults.mutations import damaged_json, pick

DTYPES = ("i1", "u1", "<i4", "<i8", "<u8", "<f4", "<f8", ">f8", "c16", "S3", "?", "V4")
SPECIAL = (np.nan, np.inf, -np.inf, 0, -1, 1, 2, 118, 119, 255, 1e9, 2**40, -(2**40), 1e300, 1e-300)


def damaged_hdf5(rng: np.random.Generator, path: Path) -> str:
    """Change one object or attribute of an HDF5 file; returns a description."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        if len(file.attrs) and rng.random() < 0.2:
            return _attribute(rng, file)
        name = pick(rng, names)
        if not isinstance(file[name], h5py.Dataset) or rng.random() < 0.15:
            return f"{name} {_replaced(rng, file, name)}"
        values = file[name][()]
        what, changed = _changed(rng, values)
        del file[name]
        try:
            file[name] = changed
        except (TypeError, ValueError):
            file[name] = np.asarray(changed).astype("S20")
        return f"{name} {what}"


def damaged_npz(rng: np.random.Generator, path: Path) -> str:
    """Change, delete or rename one array of an npz file; returns a description."""
    with np.load(path) as file:
        arrays = dict(file)
    name = pick(rng, arrays)
    values = arrays.pop(name)
    what = pick(rng, ("deleted", "renamed", *["changed"] * 8))
    if what == "renamed":
        arrays[f"{name}_"] = values
    elif what == "changed":
        what, arrays[name] = _changed(rng, values)
    np.savez(path, **arrays)
    return f"{name} {what}"


def _changed(rng: np.random.Generator, values: Any) -> tuple[str, Any]:
    """An array of another type or shape, or with other rows or values."""
    changes = (_dtype, _dtype, _rows, _rows, _shape, _values, _values, _values, _shuffle)
    return pick(rng, changes)(rng, values)


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
    array = np.atleast_1d(values)
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
    array = np.array(values, ndmin=1)
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
    array = np.array(values, ndmin=1)
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
