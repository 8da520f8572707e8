"""Commands on a full disk: one sentence with the name of the file, and exit status 2."""

from __future__ import annotations

import os
from pathlib import Path

import ase.io
import pytest

from tesseral.data.store.read import open_store
from tesseral.data.structures import atoms_from_structure


@pytest.fixture
def folder(emt_files, tmp_path, monkeypatch):
    """A working folder with set.extxyz and an earlier result of each kind."""
    monkeypatch.chdir(tmp_path)
    store = open_store(emt_files[0])
    ase.io.write("set.extxyz", [atoms_from_structure(s) for s in store])
    for name in ("out.h5", "out.pt", "out.json"):
        Path(name).write_text("earlier")
    return tmp_path


COMMANDS = {
    "import": ("data import set.extxyz -o out.h5 --overwrite --processes 1", "out.h5"),
    "split": ("data split TRAIN -o out.h5 test.h5 --overwrite", "out.h5"),
    "merge": ("data merge TRAIN TRAIN -o out.h5 --overwrite", "out.h5"),
    "check": ("data check TRAIN --json out.json", "out.json"),
    "export": ("export MODEL -o out.pt", "out.pt"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(name, run, folder, emt_files, small_model, small_files):
    words, output = COMMANDS[name]
    names = {"TRAIN": emt_files[0], "MODEL": small_model}
    small_files(100)
    status, _, error = run(*(names.get(word, word) for word in words.split()))
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith("train-potential: ") and error.endswith("file too large\n")
    assert output in error
    assert Path(output).read_text() == "earlier"
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_a_resumable_import_says_so(run, folder, monkeypatch):
    from tesseral.data.imports import importer

    def full(*_, **__):
        raise OSError("out.h5 cannot be written: full")

    with monkeypatch.context() as patch:
        patch.setattr(importer, "merge_parts", full)
        status, _, error = run("data", "import", "set.extxyz", "-o", "out.h5", "--overwrite")
    assert status == 2
    assert "run it again to resume, or delete .out.h5.import" in error
    assert run("data", "import", "set.extxyz", "-o", "out.h5", "--overwrite")[0] == 0
    assert not Path(".out.h5.import").exists()
