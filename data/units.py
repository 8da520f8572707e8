"""Conversion of units, signs and Voigt orders.

Inside tesseral: Å, eV, eV/Å, and stress as a (3, 3) tensor ``+dE/dε / V`` in eV/Å³, positive
under tension. The virial is ``-V · stress`` in eV.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import data as ase_data
from ase import units as ase_units
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": ase_units.Hartree,
    "Ry": ase_units.Rydberg,
    "kcal/mol": ase_units.kcal / ase_units.mol,
    "kJ/mol": ase_units.kJ / ase_units.mol,
}
LENGTH_UNITS = {"Å": 1.0, "A": 1.0, "Bohr": ase_units.Bohr, "nm": 10.0}
FORCE_UNITS = {
    "eV/Å": 1.0,
    "eV/A": 1.0,
    "meV/A": 1e-3,
    "Ha/Bohr": ase_units.Hartree / ase_units.Bohr,
    "Ha/A": ase_units.Hartree,
    "Ry/Bohr": ase_units.Rydberg / ase_units.Bohr,
    "kcal/mol/A": ase_units.kcal / ase_units.mol,
    "kJ/mol/A": ase_units.kJ / ase_units.mol,
    "eV/Bohr": 1.0 / ase_units.Bohr,
}
STRESS_UNITS = {
    "eV/Å³": 1.0,
    "eV/A^3": 1.0,
    "Pa": 1e-9 * ase_units.GPa,
    "GPa": ase_units.GPa,
    "kbar": 0.1 * ase_units.GPa,
    "bar": 1e-4 * ase_units.GPa,
    "Ry/Bohr^3": ase_units.Rydberg / ase_units.Bohr**3,
    "Ha/Bohr^3": ase_units.Hartree / ase_units.Bohr**3,
    "MPa": 1e-3 * ase_units.GPa,
}
LENGTH_UNITS = {"Å": 1.0, "A": 1.0, "Bohr": ase_units.Bohr, "nm": 10.0, "pm": 0.01}
VOIGT_ORDERS = {
    "ase": ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)),
    "lammps": ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)),
    "vasp": ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)),
}

EV_PER_A3_IN_GPA = 1.0 / ase_units.GPa


# Spellings of the parts of a unit in lower case; "au" is Hartree's atomic unit of any quantity.
SPELLINGS = {
    "ha": "hartree|hartrees|eh|e_h",
    "ry": "rydberg|rydbergs|ryd",
    "a": "å|ang|angs|angstrom|angstroms|ångström|ångstrom|ångstroem|aa",
    "bohr": "bohrs|a0|a_0|bohrradius",
    "ev": "evs|electronvolt|electronvolts|electron_volt",
    "kbar": "kb|kilobar",
    "gpa": "gigapascal|gigapascals",
    "au": "a.u.|a.u|atomic|atomic_units|atomicunits",
}
CANONICAL = {word: name for name, words in SPELLINGS.items() for word in words.split("|")}
ATOMIC = {"Ha", "Ha/Bohr", "Ha/Bohr^3", "Bohr"}
PER_ATOM = re.compile(r"(?:[/_ -]?per[_ -]?|/)atoms?(?![a-z])", re.IGNORECASE)
UNIT_NAME = re.compile(
    r"(?:(?:ref|dft)[_-]?)?(energ(?:y|ies)|forces?|stress(?:es)?|virials?|lengths?|pos(?:itions?)?|"
    r"distances?|coord(?:inate)?s?|cell|lattice)[_-]?units?|"
    r"units?[_-](?:of[_-])?(energ(?:y|ies)|forces?|stress(?:es)?|virials?|lengths?|pos(?:itions?)?|"
    r"distances?|coord(?:inate)?s?)|units?",  # not unit_cell, which ASE's CIF reader sets
    re.IGNORECASE,
)
QUANTITIES = {"ener": "energy", "forc": "forces", "stre": "stress", "viri": "virial"}


def unit_factor(table: dict[str, float], name: str) -> float:
    """Factor that converts a value in unit ``name`` to tesseral's unit.

    Other spellings of the units in the table are understood (``hartree/bohr``, ``eV/Ang^3``).

    Raises:
        ValueError: the unit is not in the table; the message lists the known units.
    """
    if name in table:
        return table[name]
    unit = _canonical(name)
    for known, factor in table.items():
        if _canonical(known) == unit or (unit == "au" and known in ATOMIC):
            return factor
    raise ValueError(f"unknown unit {name!r}; use one of {', '.join(table)}")


def _canonical(unit: str) -> str:
    """One spelling for all spellings of a unit: lower case, ``ha/bohr^3``."""
    text = unit.strip().lower().replace("**", "^").replace("³", "3").replace("_per_", "/")
    words = [re.sub(r"\^?\(?3\)?$", "", part.strip()) for part in text.split("/")]
    cubed = [bool(re.search(r"3\)?$", part.strip())) for part in text.split("/")]
    names = [CANONICAL.get(word, word) for word in words]
    if len(names) > 1:  # atomic units of an energy and of a length
        names = ["ha" if names[0] == "au" else names[0]] + [
            "bohr" if name == "au" else name for name in names[1:]
        ]
    return "/".join(name + "^3" * cube for name, cube in zip(names, cubed, strict=True))


def declared_units(info: Mapping[str, Any]) -> dict[str, str]:
    """Units that entries such as ``energy-unit`` or ``units`` of a structure state.

    Args:
        info: entries of a structure.

    Returns:
        Units as written, by quantity: energy, forces, stress, virial, length; and ``units`` for
        what an entry ``units`` has besides them.
    """
    found: dict[str, str] = {}
    for name, value in info.items():
        if not isinstance(value, str) or "unit" not in name.lower():
            continue
        if (match := UNIT_NAME.fullmatch(name)) is None:
            continue
        if quantity := match.group(1) or match.group(2):
            found[QUANTITIES.get(quantity.lower()[:4], "length")] = value
        else:
            for quantity, unit in _unit_list(value):
                found.setdefault(quantity, unit)
    return found


def _unit_list(text: str) -> list[tuple[str, str]]:
    """Quantities and units of a list of units, as in ``eV, eV/Å``."""
    tables = {
        "energy": ENERGY_UNITS,
        "forces": FORCE_UNITS,
        "stress": STRESS_UNITS,
        "length": LENGTH_UNITS,
    }
    found = []
    for word in re.split(r"[,;\s]+", text.strip()):
        unit = PER_ATOM.sub("", word.split("=")[-1].split(":")[-1])
        known = [name for name, table in tables.items() if _knows(table, unit)]
        found += [(name, word) for name in known] or [("units", word)]
    return found


def _knows(table: dict[str, float], unit: str) -> bool:
    try:
        unit_factor(table, unit)
    except ValueError:
        return False
    return True


def stress_tensor(stress: ArrayLike, order: str = "ase", precision: float = 0.0) -> Array:
    """Symmetric (3, 3) tensor from 6 Voigt components, 9 numbers or a (3, 3) array.

    Args:
        stress: (6,), (9,) or (3, 3); units and sign are not changed.
        order: Voigt order of six components: ``ase``, ``lammps`` or ``vasp``.
        precision: difference of two components that is only rounding, in the unit of the stress.

    Raises:
        ValueError: the shape or the order is unknown, or the tensor is not symmetric.
    """
    values = np.asarray(stress, dtype=np.float64)
    if values.size == 9:
        tensor = values.reshape(3, 3)
        scale = max(float(np.abs(tensor).max()), 1e-6)
        if float(np.abs(tensor - tensor.T).max()) > max(1e-3 * scale, precision):
            raise ValueError(f"the stress tensor is not symmetric:\n{tensor}")
        symmetric: Array = 0.5 * (tensor + tensor.T)
        return symmetric
    if values.shape != (6,):
        raise ValueError(f"a stress has 6 Voigt components or 3 × 3; found shape {values.shape}")
    if order not in VOIGT_ORDERS:
        raise ValueError(f"Voigt order {order!r} is not one of {', '.join(VOIGT_ORDERS)}")
    tensor = np.empty((3, 3))
    for value, (i, j) in zip(values, VOIGT_ORDERS[order], strict=True):
        tensor[i, j] = tensor[j, i] = value
    return tensor


def stress_voigt(tensor: ArrayLike, order: str = "ase") -> Array:
    """The 6 Voigt components of a (3, 3) stress tensor in the given order."""
    values = np.asarray(tensor, dtype=np.float64)
    return np.array([values[i, j] for i, j in VOIGT_ORDERS[order]])


COULOMB_IN_EV_A = ase_units.Hartree * ase_units.Bohr  # e² / 4πε0
BOHR_IN_A = ase_units.Bohr
NOBLE_GASES = (2, 10, 18, 36, 54)


def covalent_radius(number: int) -> float:
    """Covalent radius in Å of an element by atomic number (Cordero et al. 2008, from ASE)."""
    return float(ase_data.covalent_radii[number])


def contact_radius(number: int) -> float:
    """Radius in Å of an element for distances that no two atoms should have.

    It is the covalent radius; for noble gases, most of which form no bonds, 0.6 of the van der
    Waals radius (from ASE) if that is more.
    """
    covalent = covalent_radius(number)
    if number not in NOBLE_GASES:
        return covalent
    return max(covalent, 0.6 * float(ase_data.vdw_radii[number]))
