"""Folders of interrupted relaxations, dynamics, trainings and imports, with a damaged file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np

from benchmarks.faults.kinds.common import (
    labelled_frames,
    refuse_failed,
    summary_rows,
    write_data,
    write_model,
    write_structures,
)
from benchmarks.faults.kinds.stores import read
from benchmarks.faults.mutations import damaged_bytes, damaged_json, damaged_text, pick
from benchmarks.faults.running import Case, Kind, command
from tesseral import TesseralCalculator

INPUTS = ("model.safetensors", "atoms.extxyz", "set.h5", "labelled.extxyz")


class Run(NamedTuple):
    """A command that resumes.

    Attributes:
        words: the command line.
        part: command line of the part that the folder holds.
        numbers: function that reads the results.
        files: where the state is, as a pattern.
        resume: words added when it resumes.
    """

    words: Sequence[str]
    part: Sequence[str]
    numbers: Callable[[], Any]
    files: str
    resume: Sequence[str] = ()


def _model_numbers() -> list[float]:
    """Energies of a trained model."""
    calculator = TesseralCalculator("new.safetensors", device="cpu")
    energies = []
    for atoms in labelled_frames(3):
        atoms.calc = calculator
        energies.append(float(atoms.get_potential_energy()))
    return energies


COMMON = ("atoms.extxyz", "--model", "model.safetensors", "-o", "out")
FIT = (
    *("fit", "--data.train", "set.h5", "--output", "new.safetensors", "--model.channels", "4"),
    *("--model.layers", "1", "--model.l_max", "1", "--optimization.dtype", "float64"),
    *("--trainer.accelerator", "cpu", "--trainer.max_steps"),
)
RUNS: dict[str, Run] = {
    "relax": Run(
        ("relax", *COMMON, "--steps", "6"),
        ("relax", *COMMON, "--steps", "3"),
        lambda: summary_rows(Path("out")),
        "out/**/*",
    ),
    "md": Run(
        ("md", *COMMON, "--time", "0.02", "--every", "2"),
        ("md", *COMMON, "--time", "0.01", "--every", "2"),
        lambda: summary_rows(Path("out")),
        "out/**/*",
    ),
    "fit": Run((*FIT, "4"), (*FIT, "2"), _model_numbers, "runs/**/*", ("--ckpt_path", "last")),
    "import": Run(
        ("data", "import", "labelled.extxyz", "-o", "new.h5", "--processes", "1"),
        (),
        lambda: read(Path("new.h5"), Path()),
        ".new.h5.import/**/*",
    ),
}
WHY = {
    "relax": "rows and frames of a run are its state, and have no checksum",
    "md": "rows and frames of a run are its state, and have no checksum",
    "fit": "",
    "import": "",
}


def prepare(samples: Path) -> Mapping[str, Any]:
    """Inputs, folders of half of each command, and the results of the whole."""
    write_inputs(samples)
    numbers = {}
    for name, run in RUNS.items():
        with inside(samples / name, samples):
            if run.part:
                command(*run.part)
            else:
                _stopped_import(run)
        shutil.copytree(samples / name, samples / f"{name}-rest", symlinks=True)
        with inside(samples / f"{name}-rest", samples):
            command(*run.words, *run.resume)
            numbers[name] = run.numbers()
    return numbers


def write_inputs(samples: Path) -> None:
    """Write the inputs of the commands."""
    write_model(samples / "model.safetensors")
    write_data(samples / "set.h5", 6)
    write_structures(samples / "atoms.extxyz")
    ase.io.write(samples / "labelled.extxyz", labelled_frames(6), format="extxyz")


@contextmanager
def inside(folder: Path, samples: Path) -> Iterator[None]:
    """Work in a folder with links to the inputs."""
    before = Path.cwd()
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    for name in INPUTS:
        if not Path(name).is_symlink():
            Path(name).symlink_to(samples / name)
    try:
        yield
    finally:
        os.chdir(before)


def case(rng: np.random.Generator, samples: Path) -> Case:
    """A folder with a damaged file, and the command that resumes."""
    name = pick(rng, RUNS)
    run = RUNS[name]
    shutil.copytree(samples / name, Path(), symlinks=True, dirs_exist_ok=True)
    files = sorted(path for path in Path().glob(run.files) if path.is_file())
    path = pick(rng, files)
    what = _damage(rng, path)

    def act() -> Any:
        command(*run.words, *run.resume)
        if Path("out").exists():
            refuse_failed(Path("out"))
        return run.numbers()

    return Case(f"{name}: {path}: {what}", act, name, WHY[name])


def _damage(rng: np.random.Generator, path: Path) -> str:
    if rng.random() < 0.15:
        path.unlink()
        if rng.random() < 0.3:
            path.mkdir()
            return "a folder in its place"
        return "deleted"
    data = path.read_bytes()
    if data.startswith(b"{") and rng.random() < 0.7:
        what, text = damaged_json(rng, data.decode())
        data = text.encode("utf-8", "replace")
    elif path.suffix in (".json", ".csv", ".extxyz", "") and rng.random() < 0.8:
        what, data = damaged_text(rng, data)
    else:
        what, data = damaged_bytes(rng, data)
    path.write_bytes(data)
    return what


def _stopped_import(run: Run) -> None:
    """An import that is interrupted after its first part."""
    import tesseral.data.imports.importer as importer

    original = importer.merge_parts

    def stop(*words: Any) -> Any:
        raise KeyboardInterrupt

    importer.merge_parts = stop
    try:
        command(*run.words)
    finally:
        importer.merge_parts = original


KIND = Kind("runs", prepare, case, 1.5, seconds=60)
