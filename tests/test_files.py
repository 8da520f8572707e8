"""Whole-file writes and strict JSON."""

from __future__ import annotations

import errno
import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tesseral.files import (
    check_writable,
    json_text,
    make_folder,
    naming,
    one_line,
    write_json,
    write_text,
    write_whole,
)


def test_an_earlier_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with write_whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), OSError("other")])
def test_an_error_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as found, write_whole(path) as temporary:
        temporary.write_text("half")
        raise error
    assert found.value is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_a_normal_new_file(tmp_path: Path) -> None:
    (tmp_path / "normal").write_text("")
    write_text(tmp_path / "whole", "")
    modes = [(tmp_path / name).stat().st_mode for name in ("normal", "whole")]
    assert modes[0] == modes[1]


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_devices_are_written_directly() -> None:
    write_text(os.devnull, "text")
    assert not Path(os.devnull).is_file()


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=r"a\.txt cannot be written: no space left on device$"):
        with write_whole(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk to write to")
def test_a_full_device_is_named() -> None:
    with pytest.raises(OSError, match="^/dev/full cannot be written: no space left on device$"):
        write_text("/dev/full", "text")


def test_errors_without_a_file_get_the_name_and_others_stay(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="^run.csv cannot be written: disk quota exceeded$"):
        with naming("run.csv"):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(FileNotFoundError, match="other"), naming("run.csv"):
        (tmp_path / "other").read_text()
    with pytest.raises(OSError, match="^b cannot be written: full$"), naming("a"), naming("b"):
        raise OSError(errno.ENOSPC, "Full")


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the folder .*file/a cannot be created: not a directory$"):
        make_folder(tmp_path / "file" / "a")


def test_a_read_only_folder_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(tmp_path / "new" / "a.json")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write
    with pytest.raises(PermissionError, match=f"a.json .*the folder {tmp_path} is read-only"):
        check_writable(tmp_path / "new" / "a.json")


def test_a_folder_that_disappears_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"gone/a\.txt cannot be written: no such file"):
        with write_whole(folder / "a.txt") as temporary:
            folder.rmdir()
            temporary.write_text("text")


def test_a_folder_that_cannot_be_written_to_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:  # root may write anywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(PermissionError, match=r"a\.txt cannot be written: permission denied$"):
        write_text(tmp_path / "a.txt", "text")


def test_errors_about_other_files_stay(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), write_whole(tmp_path / "a"):
        (tmp_path / "other.txt").read_text()


def test_a_missing_folder_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
        write_text(tmp_path / "none" / "a.txt", "")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        write_text(tmp_path, "")


class Pair(NamedTuple):
    """Two values."""

    first: float
    second: float


def test_json_is_strict(tmp_path: Path) -> None:
    content = {
        "numbers": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "scalars": (np.float32(0.5), np.int64(3), np.bool_(True), -math.inf),
        "pair": Pair(1, math.nan),
        "text": "Å",
        7: None,
    }
    write_json(tmp_path / "a.json", content, indent=1)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "numbers": [[1.0, None], [None, 2.0]],
        "scalars": [0.5, 3, True, None],
        "pair": {"first": 1, "second": None},
        "text": "Å",
        "7": None,
    }
    assert "Å" in text and text.endswith("}\n")


def test_numbers_that_are_not_finite_are_refused_where_asked() -> None:
    assert json_text([1.5], finite=True) == "[1.5]"
    with pytest.raises(ValueError, match=r"probe\.a\[1\] is nan"):
        json_text({"a": [1.0, math.nan]}, finite=True, name="probe")


def test_other_types_are_named() -> None:
    with pytest.raises(TypeError, match=r"content\.a\.b is a bytes, which cannot be written"):
        json_text({"a": {"b": b"x"}})


def test_the_root_of_the_file_system_can_be_checked() -> None:
    with suppress(PermissionError):  # of users other than root
        check_writable("/")


def test_quoted_texts_are_one_short_line() -> None:
    assert one_line(ValueError("no\n  such table")) == "no such table"
    assert one_line("x" * 15000) == "x" * 1000 + " …"
