"""Frames of any file that can be imported."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import ase.io
import ase.io.formats
import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError

from tesseral.data.labels import LabelKeys
from tesseral.data.sources import aims
from tesseral.data.sources.announced import check_announced
from tesseral.data.sources.common import choose
from tesseral.data.sources.extxyz import FrameRange, read_extxyz
from tesseral.data.sources.formats import FORMATS, UNKNOWN, find_format
from tesseral.data.sources.search import Source
from tesseral.data.sources.trajectory import CONTAINERS, check_steps
from tesseral.files import one_line

DEFAULTS = asdict(LabelKeys())
INDEX = re.compile(r"-?\d+|-?\d*:-?\d*(:-?\d*)?")


def open_source(
    source: Source,
    form: str | None,
    *,
    index: str,
    keys: Callable[[LabelKeys], LabelKeys],
    left_out: Counter[str],
    given: Mapping[str, Any] | None = None,
    part: FrameRange | None = None,
) -> tuple[Iterator[Atoms], LabelKeys]:
    """Frames of a file, and the keys of their labels.

    Args:
        source: the file; its name becomes the group of a calculation's steps.
        form: ASE format name, ``aselmdb``, or ``pymatgen`` (JSON); None to detect it.
        index: frames to read, in ASE notation.
        keys: function that completes the user's keys and units with those of the format.
        left_out: counter of the omissions, filled as the frames are read.
        given: options of the import; a format's reader gets those that it takes.
        part: range of frames of an extxyz file. Default: all frames.

    Raises:
        ValueError: the file does not have the requested form.
        ase.io.formats.UnknownFileTypeError: the form is not recognised.
    """
    path, options = source.path, given or {}
    if form in (None, "pymatgen") and path.lower().endswith((".json", ".json.gz")):
        # Imported here because it takes longer than most imports of data.
        from tesseral.data.sources.json_files import read_json

        found = read_json(path, keys, left_out, options)
        if found is not None:
            _refuse_length(options, (), "JSON")
            return choose(found.frames, index), found.keys
    if form == "pymatgen":
        raise ValueError("it is not JSON in a form that is read")
    guessed = form is None and part is None
    form = "extxyz" if part else form or find_format(path)
    chosen = keys(LabelKeys())
    _refuse_length(options, FORMATS[form].takes if form in FORMATS else (), form)
    if form in FORMATS:
        taken = {name: options.get(name) for name in FORMATS[form].takes}
        frames = FORMATS[form].read(path, left_out, **taken)
        # The reader has applied these.
        chosen = replace(chosen, **{k: v for k, v in DEFAULTS.items() if k in taken})
        if FORMATS[form].steps:
            key = chosen.group_key or "group"
            frames = (_grouped(atoms, key, source.name) for atoms in frames)
        return map(whole_atoms, choose(frames, index)), chosen
    if part is None:
        check_announced(path, form)
    others = _frames(path, form, index, chosen.stress_order, part, left_out)
    guessed = guessed and "xyz" not in form
    return map(whole_atoms, _guess(others, form, index) if guessed else others), chosen


def _guess(frames: Iterator[Atoms], form: str, index: str) -> Iterator[Atoms]:
    """Frames of a file of which only ASE says the format, often by the end of its name alone.

    Raises:
        ValueError: the file cannot be read in this format, or contains nothing.
        ase.io.formats.UnknownFileTypeError: ASE has no reader of the format.
    """
    count, reason = 0, "finds nothing in it"
    try:
        for atoms in frames:
            yield atoms
            count += 1
    except UnknownFileTypeError:
        raise
    except Exception as error:  # readers raise anything
        if count:
            raise
        reason = f"fails ({error or type(error).__name__})"
    if not count and (index == ":" or reason.startswith("fails")):
        raise ValueError(
            f"ASE takes it for the format {form!r} but {reason}; if it has another format, it "
            f"{UNKNOWN}"
        )


def _refuse_length(options: Mapping[str, Any], takes: tuple[str, ...], form: str) -> None:
    """Reject a unit of length for a format that has its own."""
    if options.get("length_unit") and "length_unit" not in takes:
        raise ValueError(
            f"`length_unit` is given, but the lengths of the format {form} are in its own unit, "
            "which is known (Å, unless the file says otherwise); leave it out"
        )


def read_frames(path: str | os.PathLike[str], index: str = ":") -> Iterator[Atoms]:
    """Structures of a file, from which calculations start.

    Args:
        path: file in any format that ASE reads, or in extended XYZ as `read_extxyz` reads it. Its
            name may contain ``@``.
        index: frames to read, in ASE notation.

    Raises:
        ValueError: the file cannot be read as a whole, or a structure has partly occupied sites;
            other errors are those of ASE's readers.
    """
    name = os.fspath(path)
    form = find_format(name)
    # ASE's readers of other outputs keep constraints, and frames that an import leaves out.
    if form == aims.FORMAT.name or (form in FORMATS and form not in ase.io.formats.ioformats):
        frames = FORMATS[form].read(name, Counter(), **dict.fromkeys(FORMATS[form].takes))
        return map(whole_atoms, choose(frames, index))
    check_announced(name, form)
    return map(whole_atoms, _frames(name, form, index))


def read_last_frame(path: str | os.PathLike[str]) -> Atoms:
    """The last structure of a file; see `read_frames`.

    Raises:
        ValueError: the file cannot be read, or it has no structure.
    """
    try:
        frames = list(read_frames(path, "-1"))
    except Exception as error:  # every format of ASE raises different errors
        raise ValueError(f"{path} {unreadable(error)}") from None
    if not frames:
        raise ValueError(f"{path} holds no structures")
    return frames[0]


def unreadable(error: Exception) -> str:
    """The sentence, without its subject, that a file cannot be read as a structure."""
    reason = one_line(f"{type(error).__name__}: {error}")
    # The accidents of a reader say nothing about the file to those who do not know the reader.
    accident = isinstance(error, (LookupError, AttributeError, TypeError, AssertionError))
    why = "; it is damaged, incomplete or not of the format that its name says" if accident else ""
    return f"cannot be read as a structure{why} ({reason})"


def _frames(
    path: str,
    form: str,
    index: str,
    stress_order: str = "ase",
    part: FrameRange | None = None,
    left_out: Counter[str] | None = None,
) -> Iterator[Atoms]:
    """Frames of a format that has no reader in `FORMATS`."""
    frames: Iterator[Atoms]
    if form in ("extxyz", "xyz"):
        plain = form == "xyz"
        frames = read_extxyz(path, index, stress_order=stress_order, part=part, plain=plain)
    elif form in CONTAINERS or not INDEX.fullmatch(index):
        frames = ase.io.iread(path, index=index, format=form, do_not_split_by_at_sign=True)
    else:
        every = ase.io.iread(path, index=":", format=form, do_not_split_by_at_sign=True)
        reader = f"ASE's reader of {form!r}"
        frames = choose(check_steps(every, reader, path, form, left_out), index)
    return frames


def whole_atoms(atoms: Atoms) -> Atoms:
    """The same atoms.

    Raises:
        ValueError: sites are shared by several elements, or occupied only partly.
    """
    shares = []
    for site in (atoms.info.get("occupancy") or {}).values():
        shares.append(sum(_number(share) for share in site.values()) if len(site) == 1 else 0.0)
    for name in ("occupancy", "occupancies"):
        if name in atoms.arrays:
            # Programs that do not know occupancies write zeros.
            shares += [share or 1.0 for share in map(_number, np.ravel(atoms.arrays[name]))]
    count = sum(abs(share - 1.0) > 1e-3 for share in shares)
    if count:
        raise ValueError(
            f"{count} sites are shared by several elements or occupied only partly; make an "
            "ordered structure of it (a supercell with one atom on each site)"
        )
    return atoms


def _number(value: object) -> float:
    """Occupancy as a number; 1 if it is unknown."""
    try:
        return float(str(value))
    except ValueError:
        return 1.0


def _grouped(atoms: Atoms, key: str, name: str) -> Atoms:
    """Set the group of a calculation's step, unless the atoms already have one."""
    atoms.info.setdefault(key, name)
    return atoms
