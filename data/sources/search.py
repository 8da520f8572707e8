"""Search for source files: files, patterns such as ``runs/**/OUTCAR``, folders of calculations."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tesseral.data.sources.formats import FORMATS, known_calculation

COMPRESSED = r"(\.(gz|bz2|xz))?"
# Names that only one format has; a broken file with such a name is reported.
CERTAIN_NAME = re.compile("|".join(each.file_names for each in FORMATS.values() if each.file_names))
TEXT_NAME = re.compile(rf".*\.(out|pwo|txt|log){COMPRESSED}")  # recognised by their content
VASP_NAME = re.compile(rf"vasprun(\.xml)?|OUTCAR|\.xml|{COMPRESSED}$")


class Source(NamedTuple):
    """File to import."""

    path: str
    name: str  # short and unique
    found: bool  # found in a folder or by a pattern, not named by the user


def find_sources(given: Sequence[str]) -> list[Source]:
    """All source files, each once.

    In a folder and its subfolders these are outputs of VASP, Quantum ESPRESSO, GPAW and FHI-aims,
    and .aselmdb files. If a calculation has a vasprun.xml and an OUTCAR, only the vasprun.xml is
    used, which has more digits.

    Args:
        given: files, folders, or patterns with ``*``, ``?``, ``[…]`` and ``**`` for any folders.

    Raises:
        FileNotFoundError: a file does not exist, or a pattern or folder contains none.
    """
    paths: dict[str, bool] = {}
    for text in given:
        if Path(text).is_file():
            paths[text] = False
            continue
        if Path(text).is_dir():
            found = list(_outputs(text))
            what = (
                "no output of VASP, Quantum ESPRESSO, GPAW or FHI-aims and no .aselmdb in the "
                f"folder {text}"
            )
        else:
            matches = glob.glob(text, recursive=True)
            found = sorted(path for path in matches if Path(path).is_file())
            what = f"no file {text}"
        if not found:
            raise FileNotFoundError(f"there is {what}")
        for path in found:
            paths.setdefault(path, True)
    names = _names(list(paths))
    return [Source(path, names[path], found) for path, found in paths.items()]


def _outputs(folder: str) -> Iterator[str]:
    """Outputs of calculations in a folder and its subfolders, in order."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        names = [
            name
            for name in sorted(files)
            if CERTAIN_NAME.fullmatch(name) or TEXT_NAME.fullmatch(name)
        ]
        detailed = {VASP_NAME.sub("", name) for name in names if "vasprun" in name}
        for name in names:
            path = str(Path(place) / name)
            if "OUTCAR" in name and VASP_NAME.sub("", name) in detailed:
                continue
            if CERTAIN_NAME.fullmatch(name) or _is_output(path):
                yield path


def _is_output(path: str) -> bool:
    """Return whether a file is the output of a calculation; unreadable files are kept."""
    try:
        return known_calculation(path) is not None
    except OSError:
        return True


def _names(paths: list[str]) -> dict[str, str]:
    """Paths without their common folders."""
    whole = {path: Path(path).absolute() for path in paths}
    common = os.path.commonpath([path.parent for path in whole.values()])
    return {path: full.relative_to(common).as_posix() for path, full in whole.items()}
