"""Trajectories and tables that store the progress of a run, readable after incomplete writes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory

from tesseral.calculators.properties.atoms import changes, has_stress
from tesseral.files import naming, write_whole


def with_suffix(prefix: Path, ending: str) -> Path:
    """``run`` and ``.png`` to ``run.png``, also if the prefix contains a dot."""
    return prefix.with_name(prefix.name + ending)


def frame_of(atoms: Atoms, constraints: Sequence[Any]) -> Atoms:
    """A copy with the results of its calculator and the given constraints.

    Args:
        atoms: structure whose calculator has its results.
        constraints: constraints of the copy.
    """
    results = {
        "energy": float(atoms.get_potential_energy()),
        "forces": atoms.get_forces(apply_constraint=False),
    }
    if has_stress(atoms):
        results["stress"] = atoms.get_stress(apply_constraint=False)
    return frame_with(results, atoms, constraints)


def frame_with(results: dict[str, Any], atoms: Atoms, constraints: Sequence[Any]) -> Atoms:
    """A copy with these results and constraints."""
    frame: Atoms = atoms.copy()
    frame.set_constraint(list(constraints))
    frame.calc = KnownResults(frame, **results)  # type: ignore[no-untyped-call]
    return frame


class KnownResults(SinglePointCalculator):  # type: ignore[misc, unused-ignore]
    """Results of a structure; the comparison with others is that of `changes`."""

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Names of what differs from the structure of the results."""
        return changes(self.atoms, atoms)


def write_frames(path: Path, frames: Iterable[Atoms]) -> None:
    """Write a trajectory or extended XYZ (by its ending), either completely or not at all."""
    with write_whole(path) as temporary:
        if path.suffix == ".traj":
            with Trajectory(temporary, "w") as trajectory:
                for frame in frames:
                    trajectory.write(frame)
        else:
            with warnings.catch_warnings():
                # ASE's surfaces carry a dictionary that is not needed any more.
                warnings.filterwarnings("ignore", "Skipping unhashable information", UserWarning)
                with temporary.open("w", encoding="utf-8") as file:
                    for frame in frames:
                        ase.io.write(file, frame, format="extxyz")


class FrameWriter:
    """Trajectory to which frames are appended; errors of writing name its file."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it."""
        self._path = path
        with naming(path):
            self._trajectory: Any = Trajectory(path, "a")

    def add(self, frame: Atoms) -> None:
        """Append a frame."""
        with naming(self._path):
            self._trajectory.write(frame)

    def close(self) -> None:
        """Close the file."""
        with naming(self._path):
            try:
                self._trajectory.close()
            except OSError:  # ASE then leaves the file open
                with suppress(OSError):
                    self._trajectory.backend.fd.close()
                raise


def readable_frames(path: Path) -> Iterator[Atoms]:
    """The frames of a trajectory before the first incomplete or damaged one."""
    with open_frames(path) as frames:
        for number in range(len(frames)):
            frame = intact_frame(frames, number)
            if frame is None:
                return
            yield frame


@contextmanager
def open_frames(path: Path) -> Iterator[Any]:
    """The frames of a trajectory, read on demand; none if the file does not exist."""
    try:
        frames = Trajectory(path)
    except Exception:  # no file, an empty one, an incomplete header: all raise other errors
        yield ()
        return
    with frames:
        yield frames


def intact_frame(frames: Any, number: int) -> Atoms | None:
    """A frame of `open_frames` if it is complete: finite positions with an energy."""
    try:
        frame: Atoms = frames[number]
        finite = np.isfinite(frame.positions).all() and np.isfinite(frame.get_potential_energy())
    except Exception:  # a damaged file may contain anything
        return None
    return frame if finite else None


class Table:
    """Rows of numbers in a CSV file; each row is written as soon as it is added."""

    def __init__(self, path: Path, columns: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
        """Rewrite the file with these rows."""
        self._path = path
        with write_whole(path, sync=False) as temporary:
            text = "".join([",".join(columns) + "\n", *map(_line, rows)])
            temporary.write_text(text, encoding="utf-8")
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def add(self, row: Sequence[float]) -> None:
        """Write a row."""
        with naming(self._path):
            self._file.write(_line(row))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with naming(self._path):
            self._file.close()


def _line(row: Sequence[float]) -> str:
    return ",".join(f"{value:.9g}" for value in row) + "\n"


def read_rows(path: Path, columns: int) -> list[tuple[float, ...]]:
    """Rows written by `Table`, before the first incomplete one; none if there is no file."""
    rows: list[tuple[float, ...]] = []
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[1:]:
        try:
            row = tuple(float(value) for value in line.split(","))
        except ValueError:
            break
        if len(row) != columns or not line.endswith("\n"):
            break
        rows.append(row)
    return rows
