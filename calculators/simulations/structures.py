"""Structures from many files, each with a unique name; unreadable ones are kept as failures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ase.io
from ase import Atoms
from ase.io.jsonio import encode

from tesseral.data.sources.announced import check_announced

LABELS: tuple[Callable[[Path], str], ...] = (  # the first that distinguishes all files is used
    lambda path: path.stem,
    lambda path: path.name,
    lambda path: "-".join(part for part in path.parts if part not in ("..", path.anchor)),
)


class Job(NamedTuple):
    """A structure to be computed."""

    name: str  # name of its files; unique even if case is ignored
    file: str
    frame: int  # index in the file, from 0
    atoms: Atoms | None  # None if it cannot be read
    problem: str  # reason why it cannot be read


def read_jobs(files: Sequence[str], repeat: Sequence[int] = (1, 1, 1)) -> list[Job]:
    """All structures of all files.

    Args:
        files: files in any format ASE reads: all frames, or those selected by ``file@INDEX`` as in
            ASE (``OUTCAR@-1`` is the last, ``run.traj@::10`` every tenth).
        repeat: numbers of cells of the supercell along the three lattice vectors.

    Returns:
        Structures in the order of the files. A file that cannot be read becomes a job without
        atoms, and so does the rest of a file from the first frame that cannot be read.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a number of cells is less than 1, or a file is given twice.
    """
    if len(repeat) != 3 or min(repeat) < 1:
        raise ValueError(f"`repeat` is {' '.join(map(str, repeat))}; give three numbers from 1 up")
    parts = [_split(file) for file in files]
    found = [_read(path, index) for path, index in parts]
    for label in LABELS:
        jobs = [
            Job(name, file, number, atoms.repeat(tuple(repeat)) if atoms else None, problem)
            for file, (path, _), frames in zip(files, parts, found, strict=True)
            for number, (name, (atoms, problem)) in enumerate(
                zip(_numbered(label(path), len(frames)), frames, strict=True)
            )
        ]
        if len({job.name.casefold() for job in jobs}) == len(jobs):
            return jobs
    raise ValueError(
        "a file is given twice, or two names cannot be distinguished; give each file once"
    )


def fingerprint(job: Job) -> str:
    """A hash of everything that determines the result of a structure."""
    digest = hashlib.sha256()
    if job.atoms is not None:
        atoms = job.atoms
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(array.tobytes())
        digest.update(atoms.get_masses().tobytes())
        digest.update(encode(atoms.constraints).encode())
    return digest.hexdigest()[:32]


def _split(file: str) -> tuple[Path, str]:
    """A file and the selected frames."""
    path = Path(file)
    if path.exists():
        return path, ":"
    name, _, index = file.rpartition("@")
    if not name or not Path(name).exists():
        raise FileNotFoundError(f"there is no structure file {file}")
    return Path(name), index


def _read(path: Path, index: str) -> list[tuple[Atoms | None, str]]:
    """The frames of a file, and its error if there is one."""
    frames: list[tuple[Atoms | None, str]] = []
    if path.is_dir():
        return [(None, "it is a folder")]
    try:
        check_announced(str(path))
        for atoms in ase.io.iread(path, index=index):
            frames.append((atoms, "") if len(atoms) else (None, "it has no atoms"))
    except Exception as error:  # every format of ASE raises different errors
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        rest = f"from frame {len(frames)} on, the file" if frames else "the file"
        frames.append((None, f"{rest} cannot be read as a structure ({reason})"))
    if not frames and index != ":":
        return [(None, f"the file has no frame {index}")]
    return frames or [(None, "the file holds no structures")]


def _numbered(name: str, count: int) -> list[str]:
    """Names of the frames of a file."""
    if count == 1:
        return [name]
    width = len(str(count - 1))
    return [f"{name}-{number:0{width}d}" for number in range(count)]
