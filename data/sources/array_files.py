"""Datasets that are arrays: ``.npz`` files and HDF5 files of other programs.

* npz: R, z, E, F as in sGDML, coords, nuclear_charges, energies, forces as in rMD17, and the like;
  one row for each structure. Structures of different sizes are padded with atoms of number 0.
* HDF5 with a group for each molecule or formula, as in ANI and SPICE, which contains the same
  arrays. All structures of a group of HDF5 are one group of the dataset.
* HDF5 of MACE: ``config_batch_0/config_0/…``, in ASE's units.

Units are taken from the file if it contains them (``r_unit`` and ``e_unit`` of sGDML, attributes
``units`` of SPICE). Otherwise they must be given.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from tesseral.data.sources.common import Array, Format, labelled_atoms
from tesseral.data.sources.given import Units, given_units
from tesseral.data.units import STRESS_UNITS, stress_tensor, unit_factor

# Names of arrays in lower case; the first that exists is taken.
POSITIONS = "r coords coordinates conformations positions pos xyz".split()
NUMBERS = "z nuclear_charges atomic_numbers numbers species".split()
ENERGIES = "e energy energies dft_total_energy total_energy".split()
FORCES = "f forces force".split()
GRADIENTS = "dft_total_gradient gradients gradient".split()
CELLS = "cell cells lattice box".split()
STRESSES = "stress stresses".split()
VIRIALS = "virial virials".split()
ADVICE = "MD17, rMD17 and sGDML are in 'kcal/mol' and 'A', ANI in 'Ha' and 'A'"
UNITS = ("length_unit", "energy_unit", "forces_unit", "stress_unit", "stress_sign", "stress_order")
OPTIONS = (*UNITS, "energy_key", "forces_key", "stress_key", "virial_key")


class _Table(NamedTuple):
    """Arrays of structures with as many rows as structures; those of one kind of molecule."""

    numbers: Array  # (n,) or (frames, n)
    positions: Any  # (frames, n, 3)
    energy: Any | None
    forces: Any | None
    sign: int  # -1 if the forces are gradients
    cell: Any | None
    pbc: Any | None
    stress: Any | None
    virial: Any | None


def read_npz(path: str, left_out: Counter[str], **options: Any) -> Iterator[Atoms]:
    """Structures of an npz file.

    Args:
        path: the file.
        left_out: unused.
        options: those of `OPTIONS`.

    Raises:
        ValueError: arrays or units are missing, or shapes do not match.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz file, or it is truncated")
    with np.load(path, allow_pickle=False) as file:
        try:
            arrays = {name: file[name] for name in file.files}
        except ValueError:
            raise ValueError(
                "it contains Python objects, which are not loaded since they can run any code; "
                "save arrays of one size, padded with atoms of number 0"
            ) from None
    said = {"length_unit": _text(arrays, "r_unit"), "energy_unit": _text(arrays, "e_unit")}
    units = given_units(options, {name: text for name, text in said.items() if text}, ADVICE)
    if "lattice" in arrays and {"R", "z"} <= arrays.keys():
        arrays["lattice"] = np.swapaxes(arrays["lattice"], -1, -2)  # sGDML stores columns
    yield from _frames(_table(arrays, options), units, options)


def read_hdf5(path: str, left_out: Counter[str], **options: Any) -> Iterator[Atoms]:
    """Structures of an HDF5 file with arrays.

    Args:
        path: the file.
        left_out: unused.
        options: those of `OPTIONS`.

    Raises:
        ValueError: the file has another layout, or units are missing.
    """
    with h5py.File(path, "r") as file:
        if "content_hash" in file.attrs:
            raise ValueError("it is a dataset already; join datasets with `data merge`")
        batches = [name for name in file if name.startswith("config_batch_")]
        if batches:
            for name in sorted(batches, key=_number):
                for member in sorted(file[name], key=_number):
                    yield _mace_atoms(file[name][member])
            return
        if "config_0" in file:
            raise ValueError(
                "it is a processed dataset of an old version of MACE, without elements; import the "
                "extxyz file that it was made of"
            )
        groups = list(_tables(file))
        if not groups:
            raise ValueError(
                "no group of it contains positions and atomic numbers (with names such as "
                f"{', '.join(POSITIONS[2:5])} and {', '.join(NUMBERS[1:])}); convert it to extxyz"
            )
        for name in groups:
            group = file[name]
            units = given_units(options, _units_said(group), ADVICE)
            for atoms in _frames(_table(_members(group), options), units, options):
                atoms.info["group"] = name.strip("/") or path
                yield atoms


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _tables(group: h5py.Group) -> Iterator[str]:
    """Paths of the groups that contain positions and atomic numbers."""
    members = _members(group)
    if _find(members, POSITIONS) and _find(members, NUMBERS):
        yield group.name
        return
    for member in group.values():
        if isinstance(member, h5py.Group):
            yield from _tables(member)


def _members(group: h5py.Group) -> dict[str, Any]:
    """Datasets of a group."""
    return {name: member for name, member in group.items() if isinstance(member, h5py.Dataset)}


def _units_said(group: h5py.Group) -> dict[str, str]:
    """Units in the attributes of the arrays."""
    said = {}
    names = {"length_unit": POSITIONS, "energy_unit": ENERGIES, "forces_unit": FORCES + GRADIENTS}
    members = _members(group)
    for name, candidates in names.items():
        found = _find(members, candidates)
        text = members[found].attrs.get("units", "") if found else ""
        if text:
            said[name] = text.decode() if isinstance(text, bytes) else str(text)
    return said


def _find(arrays: Mapping[str, Any], names: list[str]) -> str | None:
    """First of the names that an array has, in any case."""
    lower = {name.lower(): name for name in arrays}
    return next((lower[name] for name in names if name in lower), None)


def _table(arrays: Mapping[str, Any], options: Mapping[str, Any]) -> _Table:
    """Arrays by their meaning.

    Raises:
        ValueError: positions or atomic numbers are missing, or a given name is absent.
    """

    def array(names: list[str], key: str | None = None) -> Any | None:
        wanted = options.get(key) if key else None
        if wanted and wanted not in arrays:
            raise ValueError(f"`{key}={wanted!r}` is not in it; it has {', '.join(arrays)}")
        found = wanted or _find(arrays, names)
        return arrays[found] if found else None

    positions, numbers = array(POSITIONS), array(NUMBERS)
    if positions is None or numbers is None:
        raise ValueError(
            "it needs positions (R, coords, positions, …) and atomic numbers (z, nuclear_charges, "
            f"atomic_numbers, …); it has {', '.join(arrays)}"
        )
    energy, forces = array(ENERGIES, "energy_key"), array(FORCES, "forces_key")
    if energy is None:
        names = [name for name in arrays if "energ" in name.lower()]
        if names:
            raise ValueError(
                f"the energy could be {', '.join(names)}; choose it with `energy_key`, and the "
                "forces with `forces_key`"
            )
    gradient = array(GRADIENTS) if forces is None else None
    one = len(positions.shape) == 2  # a single structure

    def rows(values: Any | None) -> Any | None:
        return values[()][None] if one and values is not None else values

    wanted = str(options.get("forces_key") or "").lower()
    return _Table(
        numbers=_atomic_numbers(np.asarray(numbers)),
        positions=rows(positions),
        energy=energy,
        forces=rows(gradient if forces is None else forces),
        sign=-1 if gradient is not None or "grad" in wanted else 1,
        cell=array(CELLS),
        pbc=array(["pbc"]),
        stress=rows(array(STRESSES, "stress_key")),
        virial=rows(array(VIRIALS, "virial_key")),
    )


def _atomic_numbers(numbers: Any) -> Array:
    """Atomic numbers from numbers or symbols."""
    if numbers.dtype.kind in "iuf":
        return np.asarray(numbers, dtype=np.int64)
    words = np.vectorize(lambda word: word.decode() if isinstance(word, bytes) else str(word))
    return np.asarray(np.vectorize(atomic_numbers.__getitem__)(words(numbers)), dtype=np.int64)


def _frames(table: _Table, units: Units, options: Mapping[str, Any]) -> Iterator[Atoms]:
    """Structures of a table, with labels in eV and Å.

    Raises:
        ValueError: shapes do not match, or a stress has no unit.
    """
    count, size = table.positions.shape[:2]
    energies = None if table.energy is None else np.asarray(table.energy).reshape(-1)
    _check_shapes(table, count, size, energies)
    numbers = np.broadcast_to(table.numbers, (count, size))
    factor = _stress_factor(table, options)
    for i in range(count):
        kinds = numbers[i]
        real = kinds > 0
        cell = None if table.cell is None else units.length * _cell(table.cell, i, count)
        cell = np.zeros((3, 3)) if cell is None else cell
        has_cell = bool(np.any(cell))
        stress = None
        if table.stress is not None and has_cell:
            order = options.get("stress_order") or "ase"
            stress = factor * stress_tensor(np.asarray(table.stress[i], dtype=float), order)
        elif table.virial is not None and has_cell:
            virial = stress_tensor(np.asarray(table.virial[i], dtype=float).reshape(3, 3))
            stress = -units.energy * virial / abs(np.linalg.det(cell))
        forces = None
        if table.forces is not None:
            forces = table.sign * units.forces * np.asarray(table.forces[i], dtype=float)[real]
        yield labelled_atoms(
            [chemical_symbols[z] for z in kinds[real]],
            units.length * np.asarray(table.positions[i], dtype=float)[real],
            cell,
            pbc=has_cell if table.pbc is None else _periodic(table.pbc, i),
            stress=stress,
            energy=_number_or_none(energies, i, units.energy),
            forces=None if forces is None or np.isnan(forces).any() else forces,
        )


def _cell(cells: Any, i: int, count: int) -> Array:
    """Cell of a structure: matrices, nine numbers or three lengths, for each or for all."""
    shape = tuple(cells.shape)
    if shape in ((3, 3), (9,), (3,), (1, 3, 3), (1, 9)):
        cell = np.asarray(cells, dtype=float)
    elif shape[:1] == (count,) and shape[1:] in ((3, 3), (9,), (3,)):
        cell = np.asarray(cells[i], dtype=float)
    else:
        raise ValueError(f"the cells of {count} structures have the shape {shape}")
    return np.diag(cell) if cell.shape == (3,) else cell.reshape(3, 3)


def _periodic(pbc: Any, i: int) -> Any:
    """Periodic directions of a structure, given for each or for all."""
    return np.asarray(pbc[i] if len(pbc.shape) == 2 and len(pbc) > 1 else pbc, dtype=bool).reshape(
        -1
    )


def _number_or_none(energies: Any | None, i: int, unit: float) -> float | None:
    """Energy in eV; None if it is missing or NaN."""
    if energies is None or not np.isfinite(energies[i]):
        return None
    return unit * float(energies[i])


def _check_shapes(table: _Table, count: int, size: int, energies: Any | None) -> None:
    """Reject arrays that do not belong together.

    Raises:
        ValueError: a shape does not match.
    """
    if table.numbers.shape not in ((size,), (count, size)):
        raise ValueError(
            f"positions of shape {table.positions.shape} do not match atomic numbers of shape "
            f"{table.numbers.shape}"
        )
    if energies is not None and len(energies) != count:
        raise ValueError(f"there are {len(energies)} energies of {count} structures")
    if table.forces is not None and tuple(table.forces.shape) != (count, size, 3):
        raise ValueError(f"forces of {count} structures have the shape {table.forces.shape}")


def _stress_factor(table: _Table, options: Mapping[str, Any]) -> float:
    """Factor of the stresses, with their sign.

    Raises:
        ValueError: there are stresses of unknown unit or sign.
    """
    if table.stress is None:
        return 1.0
    unit, sign = options.get("stress_unit"), options.get("stress_sign")
    if unit is None or sign is None:
        raise ValueError(
            "the unit and the sign of its stress are not known; give `stress_unit` and "
            "`stress_sign`, which is 1 if it is positive under tension"
        )
    return float(sign) * unit_factor(STRESS_UNITS, unit)


def _text(arrays: Mapping[str, Any], name: str) -> str:
    """Text in an array; empty if there is none."""
    value = arrays[name].item() if name in arrays and arrays[name].size == 1 else ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _mace_atoms(group: h5py.Group) -> Atoms:
    """Atoms of one configuration of MACE; absent values are the text ``None``."""
    values = {name: _mace_value(member) for name, member in group.items() if name != "properties"}
    labels = {}
    weights = group.get("property_weights", {})
    for name, member in group.get("properties", group).items():
        weight = weights[name][()] if name in weights else 1.0
        labels[name] = _mace_value(member) if np.all(weight) else None
    cell, pbc = values.get("cell"), values.get("pbc")
    stress, virial = labels.get("stress"), labels.get("virials")
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell).reshape(3, 3)
    if stress is None and virial is not None and cell.any():
        stress = -np.asarray(virial).reshape(3, 3) / abs(np.linalg.det(cell))
    energy = labels.get("energy")
    atoms = labelled_atoms(
        [chemical_symbols[z] for z in values["atomic_numbers"]],
        values["positions"],
        cell,
        pbc=False if pbc is None else pbc,
        stress=None if stress is None else stress_tensor(stress),
        energy=None if energy is None else float(energy),
        forces=labels.get("forces"),
    )
    kind = values.get("config_type")
    if kind not in (None, "Default"):
        atoms.info["config_type"] = kind
    return atoms


def _mace_value(member: Any) -> Any:
    """Value of an entry of MACE."""
    if not isinstance(member, h5py.Dataset):
        return None
    value = member[()]
    if isinstance(value, bytes):
        text = value.decode()
        return None if text == "None" else text
    return value


NPZ = Format("npz", read_npz, suffixes=(".npz",), takes=OPTIONS)
HDF5 = Format(
    "hdf5",
    read_hdf5,
    # netCDF-4, which is HDF5 too, is left to ASE.
    recognise=lambda head: head.startswith(b"\x89HDF\r\n") and b"_NCProperties" not in head,
    takes=OPTIONS,
)
