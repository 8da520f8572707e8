"""Frames of any file that can be imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import ase.io
from ase import Atoms

from tesseral.data.labels import LabelKeys
from tesseral.data.sources.announced import check_announced
from tesseral.data.sources.extxyz import FrameRange, open_frames, properties_parser
from tesseral.data.sources.formats import FORMATS, find_format
from tesseral.data.sources.search import Source


def open_source(
    source: Source,
    form: str | None,
    *,
    index: str,
    keys: Callable[[LabelKeys], LabelKeys],
    left_out: Counter[str],
    part: FrameRange | None = None,
) -> tuple[Iterator[Atoms], LabelKeys]:
    """Frames of a file, and the keys of their labels.

    Args:
        source: the file; its name becomes the group of a calculation's steps.
        form: ASE format name, ``aselmdb``, or ``pymatgen`` (JSON); None to detect it.
        index: frames to read, in ASE notation.
        keys: function that completes the user's keys and units with those of the format.
        left_out: counter of the omissions, filled as the frames are read.
        part: range of frames of an extxyz file. Default: all frames.

    Raises:
        ValueError: the file does not have the requested form.
        ase.io.formats.UnknownFileTypeError: the form is not recognised.
    """
    path = source.path
    if form in (None, "pymatgen") and path.lower().endswith((".json", ".json.gz")):
        # Imported here because it takes longer than most imports of data.
        from tesseral.data.sources.pymatgen import VASP_KEYS, atoms_from_json

        members = atoms_from_json(path, keys(VASP_KEYS))
        if members is not None:
            return _choose(members, index), keys(VASP_KEYS)
    if form == "pymatgen":
        raise ValueError("it is not JSON in the form of mlearn or MPtrj")
    form = "extxyz" if part else form or find_format(path)
    chosen = keys(LabelKeys())
    if form in FORMATS:
        frames = _choose(FORMATS[form].read(path, left_out), index)
        if FORMATS[form].steps:
            key = chosen.group_key or "group"
            frames = (_grouped(atoms, key, source.name) for atoms in frames)
        return frames, chosen
    options: dict[str, Any] = {}
    if form == "extxyz":
        options["properties_parser"] = properties_parser(chosen.stress_order)
    file = open_frames(path, part) if part else path
    if part is None:
        check_announced(path, form)
    others = ase.io.iread(file, index=index, format=form, do_not_split_by_at_sign=True, **options)
    return others, chosen


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
