"""Dataset files on a full disk: one error, the earlier file, and no crash at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tesseral.data.store.checked_file import CheckedFile
from tesseral.data.store.merge import merge_stores
from tesseral.data.store.read import open_store
from tesseral.data.store.write import StoreWriter, write_store

Limit = Callable[[int], None]


@pytest.mark.parametrize("size", [0, 50, 3_000, 20_000])
def test_the_error_names_the_file_and_the_earlier_one_stays(
    tmp_path: Path, make_structures: Callable, small_files: Limit, size: int
) -> None:
    path = tmp_path / "a.h5"
    write_store(path, make_structures(3))
    before = path.read_bytes()
    small_files(size)
    with pytest.raises(OSError, match=r"a\.h5 cannot be written: file too large$"):
        write_store(path, make_structures(600))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.h5"]


def test_the_error_comes_with_the_block_that_does_not_fit(
    tmp_path: Path, make_structures: Callable, small_files: Limit
) -> None:
    structures = make_structures(256, n_atoms=100) * 20
    read = 0

    def count(number: int) -> None:
        nonlocal read
        read = number

    small_files(60_000)
    with pytest.raises(OSError, match="cannot be written"):
        write_store(tmp_path / "a.h5", structures, progress=count)
    assert read < len(structures) - 256


def test_merging_keeps_the_sources(small_store: Path, tmp_path: Path, small_files: Limit) -> None:
    small_files(5_000)
    with pytest.raises(OSError, match=r"all\.h5 cannot be written: file too large$"):
        merge_stores([small_store, small_store], tmp_path / "all.h5")
    assert os.listdir(tmp_path) == []
    assert len(open_store(small_store)) == 40


def test_the_process_ends_normally(small_store: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    script = """
import resource, sys
from tesseral.data.store.merge import merge_stores
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    merge_stores([sys.argv[1]] * 30, sys.argv[2])
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(small_store), str(tmp_path / "a.h5")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("a.h5 cannot be written: file too large\n")


def test_what_was_not_written_is_still_read(tmp_path: Path, small_files: Limit) -> None:
    file = CheckedFile(tmp_path / "a")
    file.write(b"on the disk ")
    small_files(14)
    file.write(b"in memory")
    with pytest.raises(OSError, match="File too large"):
        file.check()
    file.seek(3)
    file.write(b"THE")
    file.seek(0)
    found = bytearray(30)
    assert file.readinto(found) == 30
    assert bytes(found) == b"on THE disk in memory".ljust(30, b"\0")
    assert file.seek(0, os.SEEK_END) == 21
    file.close()


def test_hdf5_reads_back_what_it_wrote(tmp_path: Path) -> None:
    values = np.arange(10_000.0).reshape(-1, 4)
    disk = CheckedFile(tmp_path / "a.h5")
    with h5py.File(disk, "w") as file:
        made = file.create_dataset("a", data=values, chunks=(64, 4), compression="gzip")
        assert np.array_equal(made[:], values)
    disk.check()
    disk.close()
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["a"][:], values)


def test_ctrl_c_within_hdf5_comes_after_the_block(
    tmp_path: Path, make_structures: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = CheckedFile.write

    def press(self: CheckedFile, content: object) -> int:
        signal.raise_signal(signal.SIGINT)
        return write(self, content)

    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "a.h5") as writer:
        monkeypatch.setattr(CheckedFile, "write", press)
        for structure in make_structures(2_000):
            writer.append(structure)
    assert os.listdir(tmp_path) == []
