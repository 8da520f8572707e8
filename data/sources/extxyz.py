"""Extended XYZ in addition to ASE: stresses of six components and parts of large files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from io import StringIO
from itertools import islice
from typing import Any, NamedTuple

from ase.io.extxyz import key_val_str_to_dict

from tesseral.data.units import stress_tensor

SIX_COMPONENTS = re.compile(r"""(?<!\S)(stress|virial)=(["'{\[])([^"'}\]]*)(["'}\]])""")


class FrameRange(NamedTuple):
    """Range of frames of a file."""

    first: int  # number of the first frame
    start: int  # byte offset
    stop: int


def split_frames(path: str | os.PathLike[str], size: int) -> list[FrameRange] | None:
    """Divide a file at the beginnings of frames.

    Only the numbers of atoms are read.

    Args:
        path: the file.
        size: approximate size of a piece in bytes.

    Returns:
        The pieces, or None if the file is not a plain sequence of frames; ASE then reports the
        error.
    """
    pieces = []
    total = os.path.getsize(path)
    with open(path, "rb") as file:
        frame = first = start = place = 0
        for line in file:
            if not line.strip().isdigit():
                if line.strip() or any(rest.strip() for rest in file):
                    return None
                break
            if int(line) > total:  # more atoms than bytes
                return None
            place += len(line) + sum(map(len, islice(file, int(line) + 1)))
            frame += 1
            if place - start >= size:
                pieces.append(FrameRange(first, start, place))
                first, start = frame, place
    if place > start:
        pieces.append(FrameRange(first, start, place))
    return pieces


def open_frames(path: str | os.PathLike[str], frames: FrameRange) -> StringIO:
    """Open a range of frames as a separate file."""
    with open(path, "rb") as file:
        file.seek(frames.start)
        return StringIO(file.read(frames.stop - frames.start).decode())


def properties_parser(order: str) -> Callable[[str], dict[str, Any]]:
    """Parser of comment lines that expands six components of ``stress`` or ``virial`` to nine.

    Args:
        order: Voigt order of the six: ``ase``, ``lammps`` or ``vasp``.
    """

    def parse(line: str) -> dict[str, Any]:
        fields: dict[str, Any] = key_val_str_to_dict(SIX_COMPONENTS.sub(nine, line))
        return fields

    def nine(match: re.Match[str]) -> str:
        values = match.group(3).replace(",", " ").split()
        if len(values) != 6:
            return match.group(0)
        tensor = stress_tensor([float(value) for value in values], order)
        return f'{match.group(1)}="{" ".join(repr(float(x)) for x in tensor.ravel())}"'

    return parse
