"""DeePMD-kit's systems: folders with ``type.raw`` and ``set.000/coord.npy``, ``energy.npy``, ….

Energies are in eV, lengths in Å, forces in eV/Å; the virial is -V · stress in eV. With mixed types
(``real_atom_types.npy``) each frame has its own types, and -1 is a missing atom. A file ``nopbc``
means that nothing is periodic. The arrays are mapped, not loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tesseral.data.sources.common import Format, labelled_atoms
from tesseral.data.sources.given import numbers_of_types
from tesseral.data.units import stress_tensor

SET = re.compile(r"set\.\d+")


def is_system(path: str) -> bool:
    """Return whether a path is a folder with a system of DeePMD-kit."""
    place = Path(path)
    return (place / "type.raw").is_file() and any(
        SET.fullmatch(each.name) for each in place.iterdir() if each.is_dir()
    )


def read_deepmd(path: str, left_out: Counter[str], elements: Sequence[str] = ()) -> Iterator[Atoms]:
    """Frames of all sets of a system.

    Args:
        path: the folder.
        left_out: unused.
        elements: elements of the types; by default those in ``type_map.raw``.

    Raises:
        ValueError: there are no elements, or an array is missing or has a wrong shape.
    """
    place = Path(path)
    names = place / "type_map.raw"
    known = names.read_text().split() if names.is_file() else []
    types = np.array((place / "type.raw").read_text().split(), dtype=np.int64)
    periodic = not (place / "nopbc").is_file()
    for folder in sorted(each for each in place.iterdir() if SET.fullmatch(each.name)):
        arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))}
        yield from _frames(folder, arrays, types, periodic, elements, known)


def _frames(
    folder: Path,
    arrays: dict[str, Any],
    types: Any,
    periodic: bool,
    elements: Sequence[str],
    known: Sequence[str],
) -> Iterator[Atoms]:
    """Frames of one set."""
    needed = ["coord", "box"] if periodic else ["coord"]
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(
            f"{folder.name} has no {missing[0]}.npy; a system without cells has a file `nopbc`"
        )
    frames, atoms = len(arrays["coord"]), len(types)
    sizes = {"coord": 3 * atoms, "box": 9, "energy": 1, "force": 3 * atoms, "virial": 9}
    sizes["real_atom_types"] = atoms
    for name, size in sizes.items():
        if name in arrays and arrays[name].size != frames * size:
            raise ValueError(
                f"{folder.name}/{name}.npy has the shape {arrays[name].shape}, but there are "
                f"{frames} frames of {atoms} atoms, which make {frames * size} numbers"
            )

    def rows(name: str, shape: tuple[int, ...]) -> Any:
        return arrays[name].reshape(frames, *shape) if name in arrays else None

    coord, force, energy = rows("coord", (atoms, 3)), rows("force", (atoms, 3)), rows("energy", ())
    box, virial, mixed = (
        rows("box", (3, 3)),
        rows("virial", (3, 3)),
        rows("real_atom_types", (atoms,)),
    )
    for i in range(frames):
        kinds = types if mixed is None else np.asarray(mixed[i], dtype=np.int64)
        real = kinds >= 0
        cell = np.zeros((3, 3)) if not periodic else np.array(box[i], dtype=np.float64)
        stress = None
        if periodic and virial is not None:
            stress = -stress_tensor(np.array(virial[i])) / abs(np.linalg.det(cell))
        yield labelled_atoms(
            [chemical_symbols[z] for z in numbers_of_types(kinds[real], elements, known)],
            np.array(coord[i][real], dtype=np.float64),
            cell,
            pbc=periodic,
            stress=stress,
            energy=None if energy is None else float(energy[i]),
            forces=None if force is None else np.array(force[i][real], dtype=np.float64),
        )


FORMAT = Format("deepmd", read_deepmd, takes=("elements",))
