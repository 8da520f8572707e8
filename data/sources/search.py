"""Search for source files: files, patterns such as ``runs/**/OUTCAR``, folders of calculations."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tesseral.data.sources import cp2k, deepmd
from tesseral.data.sources.formats import FORMATS, known_calculation

COMPRESSED = r"(\.(gz|bz2|xz))?"
# Names that only one format has; a broken file with such a name is reported.
CERTAIN_NAME = re.compile("|".join(each.file_names for each in FORMATS.values() if each.file_names))
TEXT_NAME = re.compile(
    rf"(.*\.(out|pwo|abo|txt|log|cfg|xsf)|input\.data){COMPRESSED}"
)  # recognised by their content
VASP_NAME = re.compile(rf"(?P<kind>vasprun|OUTCAR|vaspout|ML_ABN|ML_AB)|\.(xml|h5)|{COMPRESSED}$")
# Files of one calculation, in the order in which they are tried: vasprun.xml has more digits than
# an OUTCAR, which tells the convergence of each step, as not every vaspout.h5 does.
VASP_KINDS = ("vasprun", "OUTCAR", "vaspout", "ML_ABN", "ML_AB")


class Source(NamedTuple):
    """File to import."""

    path: str  # of a DeePMD system, the folder
    name: str  # short and unique
    found: bool  # found in a folder or by a pattern, not named by the user
    instead: tuple[Source, ...] = ()  # of the same calculation, if this one has no structures


def find_sources(given: Sequence[str]) -> list[Source]:
    """All source files, each once.

    In a folder and its subfolders these are outputs of DFT codes, DeePMD systems, .aselmdb files,
    and files of MLIP, n2p2 and aenet. Of the files of one VASP calculation one is used: the first
    of `VASP_KINDS`, and the next ones only if that has no structures. If CP2K wrote a trajectory,
    only that is used.

    Args:
        given: files, folders, or patterns with ``*``, ``?``, ``[…]`` and ``**`` for any folders.

    Raises:
        FileNotFoundError: a file does not exist, or a pattern or folder contains none.
    """
    paths: dict[str, bool] = {}
    instead: dict[str, list[str]] = {}
    for text in given:
        if Path(text).is_file() or deepmd.is_system(text):
            paths[text] = False
            continue
        if Path(text).is_dir():
            calculations = list(_outputs(text))
            found = [first for first, *_ in calculations]
            instead |= {first: others for first, *others in calculations}
            what = (
                "no output of VASP, Quantum ESPRESSO, GPAW, CP2K, ABINIT or FHI-aims and no DeePMD "
                f"system, .aselmdb, .cfg, .xsf or input.data in the folder {text}; name other files"
            )
        else:
            matches = glob.glob(text, recursive=True)
            found = sorted(
                path for path in matches if Path(path).is_file() or deepmd.is_system(path)
            )
            what = f"no file {text}"
        if not found:
            raise FileNotFoundError(f"there is {what}")
        for path in found:
            paths.setdefault(path, True)
    names = _names([*paths, *chain.from_iterable(instead.values())])
    return [
        Source(
            path,
            names[path],
            found,
            tuple(Source(o, names[o], found) for o in instead.get(path, ()) if o not in paths),
        )
        for path, found in paths.items()
    ]


def size_and_time(path: str) -> tuple[int, int]:
    """Bytes of a source, and the time of its last change in ns; of a folder, of all its files."""
    files = [file for file in Path(path).rglob("*") if file.is_file()] or [Path(path)]
    stats = [file.stat() for file in files]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def _outputs(folder: str) -> Iterator[list[str]]:
    """Outputs of calculations in a folder and its subfolders, in order.

    Each item lists the files of one calculation, the preferred one first.
    """
    for place, folders, files in os.walk(folder):
        folders.sort()
        if deepmd.is_system(place):
            yield [place]
            folders[:] = [name for name in folders if not deepmd.SET.fullmatch(name)]
        names = [
            name
            for name in sorted(files)
            if CERTAIN_NAME.fullmatch(name) or TEXT_NAME.fullmatch(name)
        ]
        calculations: dict[str, list[str]] = {}
        for name in sorted(names, key=_preference):
            if CERTAIN_NAME.fullmatch(name) or _is_output(str(Path(place) / name)):
                known = _preference(name)[0] < len(VASP_KINDS)
                key = "VASP " + VASP_NAME.sub("", name) if known else name
                calculations.setdefault(key, []).append(str(Path(place) / name))
        yield from sorted(calculations.values())


def _preference(name: str) -> tuple[int, str]:
    """Rank of a file among those of its calculation."""
    found = VASP_NAME.search(name)
    kind = found["kind"] if found else None
    return VASP_KINDS.index(kind) if kind else len(VASP_KINDS), name


def _is_output(path: str) -> bool:
    """Return whether a file is the output of a calculation; unreadable files are kept."""
    try:
        form = known_calculation(path)
        return form is not None and not (form == cp2k.OUTPUT.name and cp2k.has_trajectory(path))
    except OSError:
        return True


def _names(paths: list[str]) -> dict[str, str]:
    """Paths without their common folders."""
    whole = {path: Path(path).absolute() for path in paths}
    common = os.path.commonpath([path.parent for path in whole.values()])
    return {path: full.relative_to(common).as_posix() for path, full in whole.items()}
