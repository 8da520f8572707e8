"""Frames of any file that can be imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import ase.io
from ase import Atoms
from ase.io.formats import UnknownFileTypeError

from tesseral.data.labels import LabelKeys
from tesseral.data.sources.extxyz import FrameRange, open_frames, properties_parser
from tesseral.data.sources.formats import FORMATS, UNKNOWN, find_format
from tesseral.data.sources.search import Source

DEFAULTS = asdict(LabelKeys())


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
            return _choose(found.frames, index), found.keys
    if form == "pymatgen":
        raise ValueError("it is not JSON in a form that is read")
    guessed = form is None and part is None
    form = "extxyz" if part else form or find_format(path)
    chosen = keys(LabelKeys())
    _refuse_length(options, FORMATS[form].takes if form in FORMATS else (), form)
    if form in FORMATS:
        taken = {name: options.get(name) for name in FORMATS[form].takes}
        frames = _choose(FORMATS[form].read(path, left_out, **taken), index)
        # The reader has applied these.
        chosen = replace(chosen, **{k: v for k, v in DEFAULTS.items() if k in taken})
        if FORMATS[form].steps:
            key = chosen.group_key or "group"
            frames = (_grouped(atoms, key, source.name) for atoms in frames)
        return frames, chosen
    arguments: dict[str, Any] = {}
    if form == "extxyz":
        arguments["properties_parser"] = properties_parser(chosen.stress_order)
    file = open_frames(path, part) if part else path
    others = ase.io.iread(file, index=index, format=form, do_not_split_by_at_sign=True, **arguments)
    guessed = guessed and "xyz" not in form
    return _guess(others, form, index) if guessed else others, chosen


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


def _grouped(atoms: Atoms, key: str, name: str) -> Atoms:
    """Set the group of a calculation's step, unless the atoms already have one."""
    atoms.info.setdefault(key, name)
    return atoms


def _choose(frames: Iterator[Atoms], index: str) -> Iterator[Atoms]:
    """Select the frames of an index in ASE notation."""
    parts = [int(part) if part else None for part in index.split(":")]
    if any(part is not None and part < 0 for part in parts):
        every = list(frames)
        return iter(every[slice(*parts)] if len(parts) > 1 else every[int(index) :][:1])
    if len(parts) == 1 and parts[0] is not None:
        return islice(frames, parts[0], parts[0] + 1)
    return islice(frames, *parts)
