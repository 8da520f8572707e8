"""Structures from many files, each with a unique name; unreadable ones are kept as failures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from ase.io.jsonio import encode

from tesseral.data.sources.opening import read_frames, unreadable
from tesseral.data.sources.trajectory import SuspectSteps

LABELS: tuple[Callable[[Path], str], ...] = (  # the first that distinguishes all files is used
    lambda path: path.stem,
    lambda path: path.name,
    lambda path: "-".join(part for part in path.parts if part not in ("..", path.anchor)),
)


Frame = tuple[Atoms | None, str]  # a structure, or the reason why it cannot be read


class Job(NamedTuple):
    """A structure to be computed."""

    name: str  # name of its files; unique even if case is ignored
    file: str
    frame: int  # index in the file, from 0
    atoms: Atoms | None  # None if it cannot be read
    problem: str  # reason why it cannot be read
    end: Atoms | None = None  # last structure of a path that begins with ``atoms``

    def structure(self) -> Atoms:
        """The structure.

        Raises:
            ValueError: it cannot be read.
        """
        if self.atoms is None:
            raise ValueError(f"{self.file} frame {self.frame}: {self.problem}")
        return self.atoms


def read_jobs(files: Sequence[str], repeat: Sequence[int] = (1, 1, 1)) -> list[Job]:
    """All structures of all files.

    Args:
        files: files in any format ASE reads: all frames, or those selected by ``file@INDEX`` as in
            ASE (``OUTCAR@-1`` is the last, ``run.traj@::10`` every tenth).
        repeat: numbers of cells of the supercell along the three lattice vectors.

    Returns:
        Structures in the order of the files, named after their files. Frames of one file are
        numbered, or have the names in their ``info["name"]`` if all have different ones. A file
        that cannot be read becomes a job without atoms, and so does the rest of a file from the
        first frame that cannot be read.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a number of cells is less than 1, a file is given twice, or it is a folder.
    """
    if len(repeat) != 3 or min(repeat) < 1:
        raise ValueError(f"`repeat` is {' '.join(map(str, repeat))}; give three numbers from 1 up")
    parts = [located(file) for file in files]
    found = [_read(path, index) for path, index in parts]
    for label in LABELS:
        jobs = [
            Job(name, file, number, *_repeated(atoms, problem, repeat))
            for file, (path, _), frames in zip(files, parts, found, strict=True)
            for number, (name, (atoms, problem)) in enumerate(
                zip(_names(label, path, frames), frames, strict=True)
            )
        ]
        if len({job.name.casefold() for job in jobs}) == len(jobs):
            return jobs
    raise ValueError(
        "a file is given twice, or two names cannot be distinguished; give each file once"
    )


def _repeated(atoms: Atoms | None, problem: str, repeat: Sequence[int]) -> tuple[Atoms | None, str]:
    """A supercell, or None and the problem."""
    if not atoms:
        return None, problem
    if any(n > 1 and not vector.any() for n, vector in zip(repeat, atoms.cell.array, strict=True)):
        times = " ".join(map(str, repeat))
        return (
            None,
            f"`repeat` is {times}, but the structure has no cell in all of these directions",
        )
    return atoms.repeat(tuple(repeat)), problem


def read_pairs(start: str, end: str) -> list[Job]:
    """Pairs of structures, the ends of paths, named after the first.

    Args:
        start: file with the first structures; see `read_jobs`.
        end: file with the last structures, as many.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the files have different numbers of structures.
    """
    first, last = read_jobs([start]), read_jobs([end])
    if len(first) != len(last):
        raise ValueError(
            f"{start} holds {len(first)} structures and {end} {len(last)}; choose one of each, for "
            f"example {end if len(first) == 1 else start}@-1 for the last"
        )
    return [
        a._replace(end=b.atoms)
        if a.atoms and b.atoms
        else a._replace(atoms=None, problem=a.problem or f"{end}: {b.problem}")
        for a, b in zip(first, last, strict=True)
    ]


def fingerprint(job: Job) -> str:
    """A hash of everything that determines the result of a structure."""
    digest = hashlib.sha256()
    for atoms in (job.atoms, job.end):
        if atoms is None:
            continue
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(array.tobytes())
        digest.update(atoms.get_masses().tobytes())
        digest.update(encode(atoms.constraints).encode())
    return digest.hexdigest()[:32]


def located(file: str) -> tuple[Path, str]:
    """A file and the frames that ``file@INDEX`` selects.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder.
    """
    path = Path(file)
    if path.is_dir():
        raise ValueError(f"{file} is a folder; give the files in it, for example {file}/*.cif")
    if path.exists():
        return path, ":"
    name, _, index = file.rpartition("@")
    if not name or not Path(name).exists():
        raise FileNotFoundError(f"there is no structure file {file}")
    return Path(name), index


def _read(path: Path, index: str) -> list[Frame]:
    """The frames of a file, and its error if there is one."""
    frames: list[Frame] = []
    try:
        for atoms in read_frames(path, index):
            frames.append((atoms, "") if len(atoms) else (None, "it has no atoms"))
    except SuspectSteps as error:  # none of the steps can be trusted
        return [(None, str(error))]
    except Exception as error:  # every format of ASE raises different errors
        rest = f"from frame {len(frames)} on, the file" if frames else "the file"
        frames.append((None, f"{rest} {unreadable(error)}"))
    if not frames and index != ":":
        return [(None, f"the file has no frame {index}")]
    return frames or [(None, "the file holds no structures")]


def _names(label: Callable[[Path], str], path: Path, frames: Sequence[Frame]) -> list[str]:
    """Names of the frames of a file."""
    count = len(frames)
    if count == 1:
        return [label(path)]
    own = [_own_name(atoms) for atoms, _ in frames]
    if all(own) and len({name.casefold() for name in own}) == count:
        # The names of another file may be the same; then they come after that of the file.
        return own if label is LABELS[0] else [f"{label(path)}-{name}" for name in own]
    width = len(str(count - 1))
    return [f"{label(path)}-{number:0{width}d}" for number in range(count)]


def _own_name(atoms: Atoms | None) -> str:
    """The name that a frame carries, as a part of a file name; empty without one."""
    name = atoms.info.get("name") if atoms is not None else None
    return re.sub(r"[^\w.+-]+", "_", name)[:100].strip("._") if isinstance(name, str) else ""
