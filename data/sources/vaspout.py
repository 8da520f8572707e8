"""Ionic steps of VASP's vaspout.h5, one in memory at a time.

``energy`` is VASP's energy(sigma->0) and ``free_energy`` its free energy TOTEN, as in an OUTCAR.
For molecular dynamics the file has only the latter, which then becomes both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from ase import Atoms

from tesseral.data.sources.common import CUT_OFF, UNREADABLE, Array, Format, labelled_atoms
from tesseral.data.sources.vasp_settings import element_of, refusal, vasp_settings, vasp_stress

STEPS = "intermediate/ion_dynamics"
ARRAYS = ("position_ions", "lattice_vectors", "forces", "energies")  # of each step
LOGICAL = ("LDAU", "LHFCALC", "LNONCOLLINEAR", "LUSE_VDW", "ML_LMLFF")  # stored as integers
UNTOLD = "steps kept although VASP before 6.5 does not write to vaspout.h5 whether they converged"


class _Run(NamedTuple):
    """Properties that all steps share."""

    symbols: list[str]
    settings: str
    tags: dict[str, str]  # of the INCAR
    scale: float  # of the lattice; negative: volume in Å³
    free_energy: int  # column of the energies
    energy: int


def is_vaspout(path: str) -> bool:
    """Return whether a file is a vaspout.h5, by its name or its content."""
    if re.fullmatch(r".*vaspout.*\.h5", Path(path).name):
        return True
    if not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return STEPS in file
    except OSError:
        return False


def read_vaspout(path: str, left_out: Counter[str]) -> Iterator[Atoms]:
    """Ionic steps of a vaspout.h5 whose electronic steps converged.

    Args:
        path: the file.
        left_out: counter of the omissions.

    Raises:
        OSError: it is not HDF5, or VASP did not close it.
        ValueError: it has no ionic steps, does not list its atoms, or its energies or steps are not
            all those of DFT.
    """
    with h5py.File(path, "r") as file:
        run = _read_run(file)
        steps = file[STEPS]
        arrays = [steps[name] for name in (*ARRAYS, *({"stress"} & steps.keys()))]
        lengths = [len(array) for array in arrays]
        count = min(lengths)
        converged = _converged(steps, count)
        iterations = _iterations(steps, count)
        cut = count < max(lengths)
        for i in range(count):
            positions, cell, forces, energies, *stress = (array[i] for array in arrays)
            if not energies.any() and not forces.any():  # VASP fills an array when its step ends
                cut = True
                continue
            if reason := refusal(run.tags, iterations[i], converged[i]):
                left_out[reason] += 1
                continue
            try:
                atoms = _atoms(run, positions, cell, forces, energies, stress, left_out)
            except ValueError:
                left_out[UNREADABLE] += 1
                continue
            left_out[UNTOLD] += iterations[i] is None and converged[i] is None
            yield atoms
        left_out[CUT_OFF] += cut


def _read_run(file: h5py.File) -> _Run:
    """Read what all steps share.

    Raises:
        ValueError: see `read_vaspout`.
    """
    missing = [name for name in ARRAYS if f"{STEPS}/{name}" not in file]
    if missing:
        raise ValueError(f"it has no ionic steps ({STEPS} lacks {', '.join(missing)})")
    tags = _tags(file)
    if tags.get("ML_LMLFF") == "T":
        raise ValueError(
            "it does not tell the steps of a learned force field from those of DFT; import the "
            "OUTCAR, the vasprun.xml or the ML_ABN of the same calculation"
        )
    if float(tags.get("PSTRESS", "0")) != 0.0:
        raise ValueError(
            "its energies may include P·V of the PSTRESS; import the OUTCAR or the vasprun.xml of "
            "the same calculation"
        )
    place = next((g for g in ("results/positions", "input/poscar") if f"{g}/ion_types" in file), "")
    if not place:
        raise ValueError("it does not list its atoms")
    names = _texts(file[f"{place}/ion_types"])
    counts = [int(count) for count in np.ravel(file[f"{place}/number_ion_types"])]
    titles = [title.strip() for title in re.findall(r"TITEL\s*=(.*)", _potcar(file))]
    if len(titles) != len(names):
        titles = [""] * len(names)
    kinds = [element_of(title, name) for title, name in zip(titles, names, strict=True)]
    potentials = {kind: title for kind, title in zip(kinds, titles, strict=True) if title}
    labels = [" ".join(text.split()) for text in _texts(file[f"{STEPS}/energies_tags"])]
    free = next((i for i, label in enumerate(labels) if label.endswith(" TOTEN")), None)
    if free is None:
        raise ValueError(f"none of its energies ({', '.join(labels)}) is the free energy TOTEN")
    version = ".".join(
        str(np.ravel(file[f"version/{part}"])[0])
        for part in ("major", "minor", "patch")
        if f"version/{part}" in file
    )
    return _Run(
        symbols=[kind for kind, n in zip(kinds, counts, strict=True) for _ in range(n)],
        settings=vasp_settings(version, tags, potentials, _k_points(file)),
        tags=tags,
        scale=float(file[f"{STEPS}/scale"][()]) if f"{STEPS}/scale" in file else 1.0,
        free_energy=free,
        energy=next((i for i, label in enumerate(labels) if "sigma->0" in label), free),
    )


def _atoms(
    run: _Run,
    fractions: Array,
    lattice: Array,
    forces: Array,
    energies: Array,
    stress: Sequence[Array],
    left_out: Counter[str],
) -> Atoms:
    """Atoms of a step.

    Raises:
        ValueError: a number is not finite.
    """
    scale = run.scale
    if scale < 0:
        scale = float(-scale / abs(np.linalg.det(lattice))) ** (1 / 3)
    cell = scale * lattice
    return labelled_atoms(
        run.symbols,
        fractions @ cell,
        cell,
        settings=run.settings,
        stress=vasp_stress(stress[0] if stress else None, run.tags, left_out),
        energy=float(energies[run.energy]),
        free_energy=float(energies[run.free_energy]),
        forces=forces,
    )


def _tags(file: h5py.File) -> dict[str, str]:
    """Tags of the INCAR, and the defaults of others."""
    tags: dict[str, str] = {}
    for name, dataset in file.get("input/incar", {}).items():
        if isinstance(dataset, h5py.Dataset):
            tags[name.upper()] = " ".join(_texts(dataset))
    for name in LOGICAL:
        if name in tags:
            tags[name] = "T" if tags[name].strip(".").upper() in ("1", "T", "TRUE") else "F"
    without_stress = tags.get("IBRION") == "0" or tags.get("LHFCALC") == "T"
    defaults = {"ISIF": "0" if without_stress else "2", "ISMEAR": "1", "SIGMA": "0.2"}
    if cutoffs := re.findall(r"ENMAX\s*=\s*([\d.]+)", _potcar(file)):
        defaults["ENCUT"] = max(cutoffs, key=float)
    return defaults | tags


def _texts(dataset: h5py.Dataset) -> list[str]:
    """Values of a dataset as text."""
    values = np.ravel(dataset[()]).tolist()
    return [
        (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
        for value in values
    ]


def _potcar(file: h5py.File) -> str:
    """The POTCARs; empty if the file has none."""
    content = file.get("input/potcar/content")
    return "" if content is None else "\n".join(_texts(content))


def _k_points(file: h5py.File) -> str:
    """The grid of k-points, or their number."""
    axes = [f"input/kpoints/nkp{axis}" for axis in "xyz"]
    if all(axis in file for axis in axes):
        grid = [int(np.ravel(file[axis])[0]) for axis in axes]
        if all(number > 0 for number in grid):
            return " x ".join(map(str, grid))
    coordinates = file.get("results/electron_eigenvalues/kpoint_coords")
    return "" if coordinates is None else f"{len(coordinates)} irreducible"


def _converged(steps: h5py.Group, count: int) -> list[bool | None]:
    """Convergence of each step as VASP reports it (0: converged); None if it does not."""
    marks = steps.get("electronic_step_converged")
    if marks is None or not count <= len(marks) <= count + 1:  # one more while VASP is running
        return [None] * count
    return [bool(mark == 0) for mark in np.ravel(marks[:count])]


def _iterations(steps: h5py.Group, count: int) -> list[int | None]:
    """Number of electronic steps of each ionic step, from their table; None if it has none."""
    if not {"oszicar", "oszicar_label"} <= steps.keys():
        return [None] * count
    labels = _texts(steps["oszicar_label"])
    if "N" not in labels:
        return [None] * count
    numbers = steps["oszicar"][:, labels.index("N")]
    starts = np.flatnonzero(numbers == 1)
    if not count <= len(starts) <= count + 1:
        return [None] * count
    return [int(n) for n in np.diff([*starts, len(numbers)])[:count]]


FORMAT = Format(
    "vasp-h5",
    read_vaspout,
    steps=True,
    file_names=r".*vaspout.*\.h5",
)
