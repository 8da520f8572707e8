"""Files of structures and calculations, in every format that is read."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase.db import connect

from benchmarks.faults.kinds.common import (
    ROOT,
    labelled_frames,
    refuse_failed,
    summary_rows,
    write_model,
)
from benchmarks.faults.kinds.stores import read
from benchmarks.faults.mutations import damaged_bytes, damaged_json, damaged_text, pick
from benchmarks.faults.running import Case, Kind, command

FILES = ROOT / "tests/data"
# A text file has no checksum. What remains after the loss of lines may be a complete file of other
# numbers; readers compare the numbers of rows that the file states with those that it has.
WHY = "a valid file with other numbers"


class Sample(NamedTuple):
    """Undamaged file of a format."""

    file: str  # its name, by which the format may be recognised
    content: Callable[[], bytes]
    action: str = "import"  # import or relax


def repository(path: str) -> Callable[[], bytes]:
    """Content of a file of the tests, uncompressed."""

    def content() -> bytes:
        data = (FILES / path).read_bytes()
        return gzip.decompress(data) if path.endswith(".gz") else data

    return content


def written(form: str, number: int = 3) -> Callable[[], bytes]:
    """Content of a file that ASE writes."""

    def content() -> bytes:
        path = Path(f"sample.{form}")
        if form == "db":
            with connect(path) as rows:
                for atoms in labelled_frames(number):
                    rows.write(atoms)
        else:
            frames = labelled_frames(number)
            ase.io.write(path, frames if number > 1 else frames[0], format=form)
        data = path.read_bytes()
        path.unlink()
        return data

    return content


def mlearn() -> bytes:
    """JSON of pymatgen's structures and VASP's labels, as in the mlearn datasets."""
    from pymatgen.io.ase import AseAtomsAdaptor

    rows = []
    for atoms in labelled_frames(3):
        structure = AseAtomsAdaptor.get_structure(atoms).as_dict()
        stress = (-1602.0 * atoms.get_stress()).tolist()
        outputs = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()}
        outputs["virial_stress"] = stress
        rows.append({"structure": structure, "outputs": outputs, "group": "AIMD", "num_atoms": 4})
    return json.dumps(rows, default=lambda value: value.tolist()).encode()


SAMPLES: dict[str, Sample] = {
    "extxyz": Sample("a.extxyz", written("extxyz")),
    "outcar": Sample("OUTCAR", repository("files/OUTCAR")),
    "vasprun": Sample("vasprun.xml", repository("files/vasprun.xml")),
    "pw.x": Sample("pw.out", repository("sources/files/pwx_vc-relax.out.gz")),
    "pw.x md": Sample("pw.out", repository("sources/files/pwx_md.out.gz")),
    "gpaw": Sample("gpaw.txt", repository("sources/files/gpaw_si.txt.gz")),
    "gpaw traj": Sample("gpaw.traj", repository("sources/files/gpaw_si.traj")),
    "traj": Sample("a.traj", written("traj")),
    "mlearn": Sample("a.json", mlearn),
    "db": Sample("a.db", written("db")),
    "cif": Sample("a.cif", written("cif", 1), "relax"),
    "poscar": Sample("POSCAR", written("vasp", 1), "relax"),
    "xyz": Sample("a.xyz", written("extxyz", 1), "relax"),
    "pdb": Sample("a.pdb", written("proteindatabank", 1), "relax"),
    "compressed": Sample("a.extxyz.gz", lambda: gzip.compress(written("extxyz")(), mtime=0)),
    "aims": Sample("geometry.in", written("aims", 1), "relax"),
}


def prepare(samples: Path) -> Mapping[str, Any]:
    """All samples, and the numbers that their use gives."""
    write_model(samples / "model.safetensors")
    numbers = {}
    for name, sample in SAMPLES.items():
        path = Path(sample.file)
        path.write_bytes(sample.content())
        (samples / name).write_bytes(path.read_bytes())
        numbers[name] = ACTIONS[sample.action](path, samples)
        path.unlink()
    return numbers


def case(rng: np.random.Generator, samples: Path) -> Case:
    """A damaged file, imported or relaxed."""
    name = pick(rng, SAMPLES)
    sample, data = SAMPLES[name], (samples / name).read_bytes()
    path = Path(sample.file)
    if name == "mlearn" and rng.random() < 0.5:
        what, text = damaged_json(rng, data.decode())
        data = text.encode("utf-8", "replace")
    elif name in ("traj", "gpaw traj", "db"):
        what, data = damaged_bytes(rng, data)
    else:
        what, data = damaged_text(rng, data)
    if rng.random() < 0.05:
        path = path.with_name(f"{path.name}.gz")
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
            file.write(data)
        more, data = damaged_bytes(rng, packed.getvalue())
        what += f", compressed, {more}"
    path.write_bytes(data)
    return Case(f"{name}: {what}", lambda: ACTIONS[sample.action](path, samples), name, WHY)


def imported(path: Path, samples: Path) -> Any:
    """Structures of an import; their labels may be missing."""
    words = (word for name in ("energy", "forces", "stress") for word in ("--allow-missing", name))
    command("data", "import", path, "-o", "set.h5", "--processes", 1, *words)
    found = read(Path("set.h5"), samples)
    Path("set.h5").unlink()
    return found


def relaxed(path: Path, samples: Path) -> Any:
    """Summary of a relaxation of a few steps."""
    model = samples / "model.safetensors"
    status = command("relax", path, "--model", model, "--steps", 2, "-o", "out")
    refuse_failed(Path("out"))
    rows = summary_rows(Path("out"))
    shutil.rmtree("out")
    return [status, *rows]


ACTIONS: dict[str, Callable[[Path, Path], Any]] = {"import": imported, "relax": relaxed}
KIND = Kind("texts", prepare, case, 4)
