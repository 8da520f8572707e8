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

from benchmarks.faults.arrays import damaged_hdf5, damaged_npz
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
OWN = ROOT / "benchmarks/faults/files"
# A text file has no checksum. What remains after the loss of lines may be a complete file of other
# numbers; readers compare the numbers of rows that the file states with those that it has.
WHY = "a valid file with other numbers"


class Sample(NamedTuple):
    """Undamaged file of a format."""

    file: str  # its name, by which the format may be recognised
    content: Callable[[], bytes]
    action: str = "import"  # import or relax
    words: tuple[str, ...] = ()  # options of the import


def repository(path: str) -> Callable[[], bytes]:
    """Content of a file of the tests, uncompressed."""

    def content() -> bytes:
        data = (FILES / path).read_bytes()
        return gzip.decompress(data) if path.endswith(".gz") else data

    return content


def own(path: str) -> Callable[[], bytes]:
    """Content of a file next to these modules."""
    return (OWN / path).read_bytes


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


ATOMIC = ("--length-unit", "Bohr", "--energy-unit", "Ha")
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
    "aims geometry": Sample("geometry.in", written("aims", 1), "relax"),
    "aims": Sample("aims.out", repository("sources/files/aims_md.out")),
    "abinit": Sample("run.abo", own("abinit.abo")),
    "cp2k": Sample("cp2k.out", own("cp2k.out")),
    "mlip": Sample("train.cfg", own("mlip.cfg"), words=("--elements", "O,Si")),
    "runner": Sample("input.data", own("runner.data"), words=ATOMIC),
    "aenet": Sample("a.xsf", own("aenet.xsf")),
    "ml_ab": Sample("ML_AB", own("ML_AB")),
    "vaspout": Sample("vaspout.h5", own("vaspout.h5")),
    "mace": Sample("mace.h5", own("mace.h5")),
    "npz": Sample("a.npz", own("sgdml.npz")),
    "chgnet": Sample("a.json", own("chgnet.json")),
    "nomad": Sample("a.json", own("nomad.json"), words=("--stress-sign", "-1")),
}
# Formats of several files: any of them is damaged.
FOLDERS: dict[str, str] = {  # in OWN: what is imported
    "cp2k": "cp2k/water-pos-1.xyz",
    "deepmd": "deepmd",
}


def prepare(samples: Path) -> Mapping[str, Any]:
    """All samples, and the numbers that their use gives."""
    write_model(samples / "model.safetensors")
    numbers = {}
    for name, sample in SAMPLES.items():
        path = Path(sample.file)
        path.write_bytes(sample.content())
        (samples / name).write_bytes(path.read_bytes())
        numbers[name] = use(sample, path, samples)
        path.unlink()
    for name, source in FOLDERS.items():
        shutil.copytree(OWN / name, name)
        numbers[f"{name} folder"] = imported(Path(source))
    return numbers


def case(rng: np.random.Generator, samples: Path) -> Case:
    """A damaged file, imported or relaxed."""
    name = pick(rng, [*SAMPLES, *FOLDERS])
    if name in FOLDERS and (name not in SAMPLES or rng.random() < 0.5):
        return _folder(rng, name)
    sample, data = SAMPLES[name], (samples / name).read_bytes()
    path = Path(sample.file)
    path.write_bytes(data)
    what = damage(rng, path)
    if rng.random() < 0.05:
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
            file.write(path.read_bytes())
        path.unlink()
        path = path.with_name(f"{path.name}.gz")
        more, data = damaged_bytes(rng, packed.getvalue())
        path.write_bytes(data)
        what += f", compressed, {more}"
    return Case(f"{name}: {what}", lambda: use(sample, path, samples), name, WHY)


def _folder(rng: np.random.Generator, name: str) -> Case:
    """A calculation of several files of which one is damaged or missing."""
    shutil.copytree(OWN / name, name)
    path = pick(rng, sorted(path for path in Path(name).rglob("*") if path.is_file()))
    if rng.random() < 0.05:
        path.unlink()
        what = "deleted"
    else:
        what = damage(rng, path)
    source = Path(FOLDERS[name])
    return Case(f"{path}: {what}", lambda: imported(source), f"{name} folder", WHY)


def damage(rng: np.random.Generator, path: Path) -> str:
    """Damage a file as what its name says that it is; returns a description."""
    data = path.read_bytes()
    objects = rng.random() < 0.5
    if path.suffix == ".h5" and objects:
        return damaged_hdf5(rng, path)
    if path.suffix == ".npz" and objects:
        return damaged_npz(rng, path)
    if path.suffix == ".json" and objects:
        what, text = damaged_json(rng, data.decode())
        data = text.encode("utf-8", "replace")
    elif path.suffix in (".traj", ".db", ".h5", ".npz", ".npy"):
        what, data = damaged_bytes(rng, data)
    else:
        what, data = damaged_text(rng, data)
    path.write_bytes(data)
    return what


def use(sample: Sample, path: Path, samples: Path) -> Any:
    """Import or relax a sample."""
    return relaxed(path, samples) if sample.action == "relax" else imported(path, *sample.words)


def imported(path: Path, *options: str) -> Any:
    """Structures of an import; their labels may be missing."""
    words = (word for name in ("energy", "forces", "stress") for word in ("--allow-missing", name))
    command("data", "import", path, "-o", "set.h5", "--processes", 1, *words, *options)
    found = read(Path("set.h5"), Path())
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


KIND = Kind("texts", prepare, case, 4)
