"""Which files a user means: files, patterns such as ``runs/**/OUTCAR``, folders of calculations."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tesseral.data.sources.formats import FORMATS, known_calculation

COMPRESSED = r"(\.(gz|bz2|xz))?"
# Names that only one format has; a broken file of such a name is worth a note.
CERTAIN_NAME = re.compile("|".join(each.file_names for each in FORMATS.values() if each.file_names))
TEXT_NAME = re.compile(rf".*\.(out|pwo|txt|log){COMPRESSED}")  # what they hold decides
VASP_NAME = re.compile(rf"vasprun(\.xml)?|OUTCAR|\.xml|{COMPRESSED}$")


class Source(NamedTuple):
    """A file to import."""

    path: str
    name: str  # short and unlike all others
    found: bool  # in a folder or by a pattern, and not named by the user


def find_sources(given: Sequence[str]) -> list[Source]:
    """All files that are meant, each once.

    In a folder, and those within it, these are outputs of VASP, Quantum ESPRESSO and GPAW, and
    .aselmdb files; of a vasprun.xml and an OUTCAR of the same calculation the vasprun.xml, which
    has more digits.

    Args:
        given: files, folders, or patterns with ``*``, ``?``, ``[…]`` and ``**`` for any folders.

    Raises:
        FileNotFoundError: there is no such file, or a pattern or folder holds none.
    """
    paths: dict[str, bool] = {}
    for text in given:
        if Path(text).is_file():
            paths[text] = False
            continue
        if Path(text).is_dir():
            found = list(_outputs(text))
            what = (
                f"no output of VASP, Quantum ESPRESSO or GPAW and no .aselmdb in the folder {text}"
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
    """Outputs of calculations in a folder and all below it, in order."""
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
    """Whether a file is a calculation's, or cannot be read, which the import will tell."""
    try:
        return known_calculation(path) is not None
    except OSError:
        return True


def _names(paths: list[str]) -> dict[str, str]:
    """Paths without the folders that all have in common."""
    whole = {path: Path(path).absolute() for path in paths}
    common = os.path.commonpath([path.parent for path in whole.values()])
    return {path: full.relative_to(common).as_posix() for path, full in whole.items()}
