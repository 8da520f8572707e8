"""Datasets that another program or an accident has changed: refused when opened or read."""

import h5py
import numpy as np
import pytest

from tesseral.data.store.read import open_store, write_store


@pytest.fixture
def path(tmp_path, make_structures):
    write_store(tmp_path / "a.h5", make_structures(5))
    return tmp_path / "a.h5"


def replaced(path, name, values):
    with h5py.File(path, "r+") as file:
        del file[name]
        if values is None:
            file.create_group(name)
        else:
            file[name] = values


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("numbers", lambda old: None, "numbers is not an array"),
        ("numbers", lambda old: old[:0], "positions has .* rows, not 0"),
        ("numbers", lambda old: old[:-1], "positions has .* rows, not"),
        ("numbers", lambda old: old.astype("f8"), "numbers has the type float64"),
        ("positions", lambda old: old.astype("c16"), "positions has the type complex128"),
        ("forces", lambda old: old.reshape(-1), "forces has the type float64 and the shape"),
        ("offsets", lambda old: old[:-1], "offsets has 5 rows, not 6"),
        ("energy", lambda old: 1.0, "energy has the type float64"),
        ("n_atoms", lambda old: old[:-1], "cell has 5 rows, not 4"),
        ("texts/group", lambda old: np.zeros(3), "texts/group is not a list of texts"),
        ("texts", lambda old: None, "cannot be read"),
    ],
)
def test_arrays_are_compared_when_the_file_is_opened(path, name, change, message):
    with h5py.File(path) as file:
        old = file[name][()] if isinstance(file[name], h5py.Dataset) else None
    replaced(path, name, change(old))
    with pytest.raises(ValueError, match=message):
        open_store(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("offsets", 10**9, "has no atoms according to its offsets"),
        ("n_atoms", 10**9, "n_atoms and offsets do not agree"),
        ("numbers", 119, "numbers of structure 1 is 119"),
        ("positions", np.nan, "positions of structure 1 is"),
        ("cell", np.inf, "cell of structure 1 is"),
        ("energy", np.inf, "energy of structure 1 is inf"),
        ("texts/group_index", 7, "values beyond the"),
    ],
)
def test_values_are_checked_when_they_are_read(path, name, value, message):
    with h5py.File(path, "r+") as file:
        row = int(file["offsets"][1]) if name in ("numbers", "positions") else 1
        if name == "texts/group_index":
            del file["texts/group"]
            file.create_dataset("texts/group", data=["a", "b"], dtype=h5py.string_dtype())
        file[name][row] = value
    store = open_store(path)
    with pytest.raises(ValueError, match=message):
        list(store)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("elements", np.zeros((2, 2))),
        ("elements", np.array([300])),
        ("units", "{}"),
        ("content_hash", 1),
        ("format_version", "x"),
    ],
)
def test_attributes_are_checked(path, name, value):
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(ValueError, match="damaged"):
        open_store(path)


def test_a_heap_of_texts_without_a_size_does_not_hang(path):
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL") + 16
    data[start : start + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its texts at byte .* are lost"):
        open_store(path)
