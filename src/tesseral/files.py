"""Atomic writing of files, strict JSON, and the text of other libraries' errors."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # errors without a file name
LONGEST_TEXT = 1000  # characters that are quoted


@contextmanager
def write_whole(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """Write a file so that it appears only when complete, replacing an earlier one.

    The block writes to a temporary file in the same folder, which is renamed at the end of the
    block and removed after an error. A symbolic link is kept; the file it points to is replaced.
    Pipes and devices, such as ``/dev/stdout``, are written directly.

    Args:
        path: the file to write.
        sync: wait until the content is on disk, so that it survives a power failure.

    Yields:
        The name of the temporary file, which the block must create.

    Raises:
        OSError: the file cannot be written; the message names it and gives the reason. The
            subclass is that of the original error, such as ``PermissionError``.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} cannot be written: it is a folder")
    if target.exists() and not target.is_file():
        with naming(target):
            yield target
        return
    real = target.resolve()
    if not real.parent.is_dir():
        raise FileNotFoundError(f"{target} cannot be written: there is no folder {target.parent}")
    temporary = real.with_name(f".{real.name}.{os.getpid()}.tmp")
    try:
        with naming(target, temporary):
            yield temporary
            if sync:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.replace(real)
    finally:
        with suppress(OSError):  # a folder that is gone or read-only has no temporary file
            temporary.unlink()


@contextmanager
def naming(path: str | os.PathLike[str], written: Path | None = None) -> Iterator[None]:
    """Name a file in the errors of writing it.

    The system's errors of a full disk, an exceeded quota or a lost device name no file.

    Args:
        path: the file as the user knows it.
        written: the file that is really written. Default: the same.

    Raises:
        OSError: the file cannot be written. The subclass is that of the original error.
    """
    written = Path(path) if written is None else written
    try:
        yield
    except OSError as error:
        own = error.filename is not None and Path(error.filename) == written
        if not own and (error.errno not in FULL or error.filename is not None):
            raise
        raise _renamed(error, f"{path} cannot be written") from error


def make_folder(path: str | os.PathLike[str]) -> None:
    """Create a folder and those above it, if they do not exist.

    Raises:
        OSError: the folder cannot be created; the message names it and gives the reason.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _renamed(error, f"the folder {path} cannot be created") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check, before a long computation, that a file or folder can be written there.

    Raises:
        PermissionError: the nearest folder that exists is read-only; the message names both.
    """
    place = Path(path).absolute()
    above = next(folder for folder in (*place.parents, place) if folder.exists())  # / has none
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{path} cannot be written: the folder {above} is read-only")


def _renamed(error: OSError, message: str) -> OSError:
    """Error of the same kind with the reason after the message."""
    reason = error.strerror or str(error)
    kind = type(error) if type(error).__module__ == "builtins" else OSError
    return kind(f"{message}: {reason[:1].lower()}{reason[1:]}")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any, *, indent: int) -> None:
    """Write strict JSON and a newline atomically; see `json_text`.

    Raises:
        TypeError: the content has a type that JSON cannot represent.
        OSError: the file cannot be written.
    """
    write_text(path, json_text(content, indent=indent) + "\n")


def json_text(
    content: Any, *, indent: int | None = None, finite: bool = False, name: str = "content"
) -> str:
    """Strict JSON, with null for numbers that are not finite.

    Args:
        content: text, numbers, lists, mappings, NumPy arrays and scalars. Keys become text, and
            named tuples become mappings.
        indent: number of spaces per level. Default: everything on one line.
        finite: reject numbers that are not finite.
        name: name of the content in messages.

    Raises:
        TypeError: the content has a type that JSON cannot represent.
        ValueError: a number is not finite and ``finite`` is set.
    """
    return json.dumps(_plain(content, finite, name), indent=indent, ensure_ascii=False)


def _plain(value: Any, finite: bool, name: str) -> Any:
    """Convert a value to JSON's types."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        if finite:
            raise ValueError(f"{name} is {value}; JSON holds finite numbers only")
        return None
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, finite, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(item, finite, f"{name}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"{name} is a {type(value).__name__}, which cannot be written as JSON; it holds text, "
        "numbers, lists and mappings only"
    )


def one_line(text: object) -> str:
    """Text of an error or of a value, which may be long or have several lines, in one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]} …"
