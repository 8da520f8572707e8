"""Elements and units that a file does not contain and the user has to give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray

from tesseral.data.units import ENERGY_UNITS, FORCE_UNITS, LENGTH_UNITS, unit_factor

# Spellings of units in files, in lower case.
SPELLINGS = {
    "ang": "A",
    "angstrom": "A",
    "angstroms": "A",
    "a": "A",
    "å": "A",
    "bohr": "Bohr",
    "bohrs": "Bohr",
    "a0": "Bohr",
    "nm": "nm",
    "ev": "eV",
    "mev": "meV",
    "ha": "Ha",
    "hartree": "Ha",
    "ry": "Ry",
    "rydberg": "Ry",
    "kcal/mol": "kcal/mol",
    "kcalpermol": "kcal/mol",
    "kj/mol": "kJ/mol",
}


class Units(NamedTuple):
    """Factors that convert numbers of a file to Å, eV and eV/Å."""

    length: float
    energy: float
    forces: float


def given_units(
    options: Mapping[str, str | None], said: Mapping[str, str], advice: str, what: str = "it"
) -> Units:
    """Units given by the user, otherwise those in the file.

    The unit of the forces is by default that of the energy over that of the length.

    Args:
        options: ``length_unit``, ``energy_unit`` and ``forces_unit`` given by the user, or None.
        said: units in the file under the same names, in any spelling.
        advice: end of the error message, which says what is usual.
        what: name of the file in the error message.

    Raises:
        ValueError: a unit is neither given nor in the file, or is unknown.
    """
    units = {
        name: options.get(name) or _spelled(said.get(name))
        for name in ("length_unit", "energy_unit", "forces_unit")
    }
    missing = [f"`{name}`" for name in ("length_unit", "energy_unit") if units[name] is None]
    if missing:
        raise ValueError(
            f"{what} does not contain its units; give {' and '.join(missing)}. {advice}"
        )
    length = unit_factor(LENGTH_UNITS, str(units["length_unit"]))
    energy = unit_factor(ENERGY_UNITS, str(units["energy_unit"]))
    forces = units["forces_unit"]
    return Units(
        length, energy, energy / length if forces is None else unit_factor(FORCE_UNITS, forces)
    )


def _spelled(unit: str | None) -> str | None:
    """Name of a unit here, for any spelling; a force as energy/length."""
    if unit is None:
        return None
    text = unit.strip().lower().replace(" ", "")
    energy, slash, length = text.rpartition("/")
    if slash and energy in SPELLINGS and length in SPELLINGS:
        return f"{SPELLINGS[energy]}/{SPELLINGS[length]}"
    return SPELLINGS.get(text, unit.strip())


def numbers_of_types(
    types: ArrayLike, elements: Sequence[str], known: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Atomic numbers of types, which are numbers from 0.

    Args:
        types: (n,) types.
        elements: chemical symbols of the types given by the user; they come first.
        known: names of the types in the file.

    Raises:
        ValueError: there is no element for a type.
    """
    index = np.asarray(types, dtype=np.int64)
    names = list(elements or known)
    highest = int(index.max(initial=0))
    if not names:
        raise ValueError(
            f"the atoms have types 0 to {highest} instead of elements; give the elements in the "
            "order of the types with `elements`, such as Si,O"
        )
    if highest >= len(names) or int(index.min(initial=0)) < 0:
        raise ValueError(
            f"there are types up to {highest}, but only {len(names)} elements "
            f"({', '.join(names)}); give one for each type, from type 0, with `elements`"
        )
    for name in names:
        if name not in atomic_numbers:
            raise ValueError(
                f"the type {name!r} is not an element; give the elements in the order of the "
                "types with `elements`"
            )
    return np.array([atomic_numbers[name] for name in names], dtype=np.int64)[index]
