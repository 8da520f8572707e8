"""Search for energy, forces and stress in ASE's atoms.

When no key is given, the calculator's results and these names (in any case) are candidates, and
they must agree: ``energy``, ``REF_energy``, ``dft_energy``, ``total_energy``, … for the energy,
likewise for forces, stress and virial. ``free_energy`` is used only if there is no other energy: of
the two energies of a calculation with smearing, most files use ``energy`` as the label. Forces are
derivatives of the free energy; ``energy_key="free_energy"`` selects it.

Units that a structure states itself (``energy-unit=hartree``) are used, and must not contradict
those given. Energies per atom, by their key or unit, are multiplied by the number of atoms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from tesseral.data.cells import has_volume
from tesseral.data.units import (
    ENERGY_UNITS,
    EV_PER_A3_IN_GPA,
    FORCE_UNITS,
    LENGTH_UNITS,
    PER_ATOM,
    STRESS_UNITS,
    VOIGT_ORDERS,
    declared_units,
    stress_tensor,
    unit_factor,
)

Array = NDArray[np.float64]

LABELS = ("energy", "forces", "stress")
KNOWN_NAMES = {
    "energy": (
        "energy ref_energy dft_energy energy_dft total_energy totenergy potential_energy".split()
    ),
    "forces": "forces force ref_forces ref_force dft_forces dft_force forces_dft".split(),
    "stress": "stress ref_stress dft_stress stress_dft".split(),
    "virial": "virial virials ref_virial ref_virials dft_virial dft_virials".split(),
}

STRESS_DIFFERENCE, STRESS_DIGITS = 0.01, 1e-4  # of a stress and a virial; the latter eV/Å³

STATES = (  # what a model does not know of a structure
    "charge total_charge tot_charge net_charge spin total_spin multiplicity spin_multiplicity "
    "magmom total_magmom"
).split()

LOOKS_LIKE = {
    "energy": re.compile(r"energ|(?:^|_)e_?per_?atom|^e/atom", re.IGNORECASE),
    "forces": re.compile("forc|grad", re.IGNORECASE),
    "stress": re.compile("stress|virial", re.IGNORECASE),
}


@dataclass(frozen=True, kw_only=True)
class LabelKeys:
    """Keys and units of the labels of a file.

    Args:
        energy_key: name of the energy in ``info`` or of the calculator; None for common names.
        forces_key: name of the forces in ``arrays`` or of the calculator.
        stress_key: name of the stress in ``info`` or of the calculator.
        virial_key: name of a virial, -V · stress, in ``energy_unit``; used instead of a stress.
        config_type_key: name of the configuration type; None for ``config_type`` or ``category``.
        group_key: name of the group that a split must not divide; None for ``group``.
        energy_unit: a key of ``units.ENERGY_UNITS``, perhaps followed by ``/atom``. None for the
            unit that the structure states, or eV.
        forces_unit: a key of ``units.FORCE_UNITS``; None for the unit stated, or eV/Å.
        stress_unit: a key of ``units.STRESS_UNITS``; None for the unit stated, or eV/Å³.
        stress_sign: 1 if the stress is positive under tension (ASE), -1 for the opposite (VASP).
        stress_order: Voigt order of six components: ``ase``, ``lammps`` or ``vasp``. Those of a
            calculator are always in ASE's order.
        optional: labels (energy, forces, stress) that may be missing even if they are requested or
            an entry looks like them.
    """

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    config_type_key: str | None = None
    group_key: str | None = None
    energy_unit: str | None = None
    forces_unit: str | None = None
    stress_unit: str | None = None
    stress_sign: int = 1
    stress_order: str = "ase"
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject unknown units, signs, orders and labels."""
        unit_factor(ENERGY_UNITS, PER_ATOM.sub("", self.energy_unit or "eV"))
        unit_factor(FORCE_UNITS, self.forces_unit or "eV/Å")
        unit_factor(STRESS_UNITS, self.stress_unit or "eV/Å³")
        if self.stress_sign not in (1, -1):
            raise ValueError(f"stress_sign is {self.stress_sign}; use 1 or -1")
        if self.stress_order not in VOIGT_ORDERS:
            raise ValueError(
                f"stress_order {self.stress_order!r} is not one of {', '.join(VOIGT_ORDERS)}"
            )
        if self.stress_key is not None and self.virial_key is not None:
            raise ValueError("stress_key and virial_key are both given; choose one of them")
        check_label_names(self.optional)


def check_label_names(names: tuple[str, ...] | list[str]) -> None:
    """Reject names other than energy, forces and stress."""
    for name in names:
        if name not in LABELS:
            raise ValueError(f"{name!r} is not a label; use {', '.join(LABELS)}")


class FoundLabels(NamedTuple):
    """Labels in tesseral's units; None if missing."""

    energy: float | None  # eV
    forces: Array | None  # (n, 3) eV/Å
    stress: Array | None  # (3, 3) eV/Å³, positive under tension


def find_labels(atoms: Atoms, keys: LabelKeys) -> FoundLabels:
    """Energy, forces and stress of one structure.

    Raises:
        ValueError: a requested key is absent, candidates disagree, a label has a wrong shape, or
            an entry looks like a label that was not found.
    """
    energy = _pick(atoms, "energy", keys.energy_key, keys)
    forces = _pick(atoms, "forces", keys.forces_key, keys)
    units = _units(atoms, keys)
    named = bool(PER_ATOM.search(keys.energy_key or ""))  # and so multiplied already
    if energy is not None and PER_ATOM.search(units["energy"]) and not named:
        energy = energy * len(atoms)
    return FoundLabels(
        energy=None if energy is None else float(energy) * _factor(ENERGY_UNITS, units["energy"]),
        forces=None if forces is None else forces * _factor(FORCE_UNITS, units["forces"]),
        stress=_find_stress(atoms, keys, units) if _has_volume(atoms) else None,
    )


def _factor(table: dict[str, float], unit: str) -> float:
    return unit_factor(table, PER_ATOM.sub("", unit))


def _units(atoms: Atoms, keys: LabelKeys) -> dict[str, str]:
    """Units of energy, forces, stress and virial: those given, those stated, or tesseral's.

    Raises:
        ValueError: a stated unit is unknown, or differs from the one given.
    """
    declared = declared_units(atoms.info)
    given = {"energy": keys.energy_unit, "forces": keys.forces_unit, "stress": keys.stress_unit}
    if not declared:
        energy = given["energy"] or "eV"
        return {
            "energy": energy,
            "forces": given["forces"] or "eV/Å",
            "stress": given["stress"] or "eV/Å³",
            "virial": energy,
        }
    return _combined_units(declared, given)


def _combined_units(declared: dict[str, str], given: dict[str, str | None]) -> dict[str, str]:
    """Units from those that a structure states and those given."""
    if "units" in declared and not (given["energy"] and given["forces"]):
        raise ValueError(
            f"the file states units={declared['units']!r}, which is not known; pass `energy_unit` "
            "and `forces_unit`"
        )
    if unit_factor(LENGTH_UNITS, declared.get("length", "Å")) != 1.0:
        raise ValueError(f"the file states lengths in {declared['length']!r}; convert them to Å")
    units = {}
    for label, table, usual in (
        ("energy", ENERGY_UNITS, "eV"),
        ("forces", FORCE_UNITS, "eV/Å"),
        ("stress", STRESS_UNITS, "eV/Å³"),
    ):
        stated, chosen = declared.get(label), given[label]
        units[label] = chosen or stated or usual
        if stated is None:
            continue
        try:
            factor = _factor(table, stated)
        except ValueError:
            if chosen:
                continue
            raise ValueError(
                f"the file states {label} in {stated!r}, which is not known; pass `{label}_unit`, "
                f"one of {', '.join(table)}"
            ) from None
        per_atom = [bool(PER_ATOM.search(unit)) for unit in (stated, units[label])]
        if factor != _factor(table, units[label]) or per_atom[0] != per_atom[1]:
            raise ValueError(
                f"`{label}_unit` is {chosen!r}, but the file states {stated!r}; leave it out, or "
                "correct the file"
            )
    units["virial"] = declared.get("virial", units["energy"])
    return units


def find_text(atoms: Atoms, names: tuple[str, ...]) -> str:
    """The first of the named entries of ``info`` as text; empty if there is none."""
    info = _info(atoms)
    for name in names:
        if info.get(name) is not None:
            return str(info[name])
    return ""


def unread_labels(atoms: Atoms, keys: LabelKeys) -> list[str]:
    """Names of entries that look like labels but are not what `find_labels` reads."""
    chosen = {keys.energy_key, keys.forces_key, keys.stress_key, keys.virial_key}
    names = []
    for label in LABELS:
        known = {
            "free_energy",
            *KNOWN_NAMES[label],
            *(KNOWN_NAMES["virial"] if label == "stress" else ()),
        }
        names += [
            name
            for name in _lookalikes(atoms, label)
            if name not in chosen and name.lower() not in known
        ]
    return names


def describe_conversions(atoms: Atoms, keys: LabelKeys) -> list[str]:
    """Sentences about the name, unit, sign and order with which each label is read."""
    units = _units(atoms, keys)
    tables = {"energy": ENERGY_UNITS, "forces": FORCE_UNITS}
    if _has_volume(atoms):
        if keys.virial_key is None:
            tables["stress"] = STRESS_UNITS
        if keys.stress_key is None:
            tables["virial"] = ENERGY_UNITS
    lines: dict[str, str] = {}
    for label, table in tables.items():
        if label == "virial" and "stress" in lines:
            continue
        key = getattr(keys, f"{label}_key")
        found = _candidates(atoms, label, key, keys)
        if label == "energy" and not found and key is None:
            found = _candidates(atoms, label, "free_energy", keys)
        if not found:
            continue
        place = next(iter(found))
        unit = units[label]
        factor = _factor(table, unit) * (keys.stress_sign if label == "stress" else 1)
        said = "" if factor == 1 else f" · {factor:.7g}"
        if label == "virial":
            said += " / -V"
        if label in ("stress", "virial"):
            said += f", {_order_words(atoms, place, keys)}"
        lines[label] = f"{'stress' if label == 'virial' else label} = {place} in {unit}{said}"
    return list(lines.values())


def _order_words(atoms: Atoms, place: str, keys: LabelKeys) -> str:
    """Order of the components of a stress or virial, by the description of its place."""
    order = VOIGT_ORDERS[keys.stress_order]
    names = " ".join("xyz"[i] + "xyz"[j] for i, j in order)
    if place.startswith("the calculator's"):
        return f"read by ASE (six components in extended XYZ: {names})"
    name = place.split("'")[-2]
    return names if np.size(_info(atoms)[name]) == 6 else "a tensor"


def dropped_stress(atoms: Atoms, keys: LabelKeys) -> bool:
    """Return whether a stress exists but is dropped since the structure has no volume."""
    return not _has_volume(atoms) and any(
        _candidates(atoms, label, key, keys)
        for label, key in (("stress", keys.stress_key), ("virial", keys.virial_key))
    )


def free_energy_difference(atoms: Atoms, keys: LabelKeys) -> float:
    """Free energy minus energy per atom; 0 if either is missing or the energy was chosen."""
    results = {**_info(atoms), **_results(atoms)}
    if keys.energy_key is not None or not {"energy", "free_energy"} <= results.keys():
        return 0.0
    try:
        return (float(results["free_energy"]) - float(results["energy"])) / len(atoms)
    except (TypeError, ValueError):  # one of them is no number, and not read either
        return 0.0


def per_atom_label(atoms: Atoms, keys: LabelKeys) -> str:
    """Name or unit by which the energy is one per atom; empty if it is a total energy."""
    if keys.energy_key is not None and PER_ATOM.search(keys.energy_key):
        return keys.energy_key
    unit = keys.energy_unit or declared_units(_info(atoms)).get("energy", "")
    return unit if PER_ATOM.search(unit) else ""


def states(atoms: Atoms) -> dict[str, str]:
    """Charge, spin and magnetic moment of a structure, as texts."""
    found = {}
    for name, value in {**_results(atoms), **_info(atoms)}.items():
        if name.lower() in STATES and np.ndim(value) == 0 and not isinstance(value, bool):
            number = round(float(value), 1) if isinstance(value, int | float | np.number) else value
            found[name] = f"{number:g}" if isinstance(number, float) else str(number)
    return found


def _find_stress(atoms: Atoms, keys: LabelKeys, units: dict[str, str]) -> Array | None:
    """Stress tensor in eV/Å³, from a stress or, if there is none, from a virial.

    Raises:
        ValueError: there are both, neither was chosen, and they disagree.
    """
    stress: Array | None = None
    virial: Array | None = None
    if keys.virial_key is None:
        stress = _pick(atoms, "stress", keys.stress_key, keys)
    if keys.stress_key is None:
        virial = _pick(atoms, "virial", keys.virial_key, keys)
    if stress is not None:
        factor = keys.stress_sign * unit_factor(STRESS_UNITS, units["stress"])
        stress = np.asarray(factor * stress, dtype=np.float64)
    if virial is not None:
        if PER_ATOM.search(units["virial"]) and not PER_ATOM.search(keys.virial_key or ""):
            virial = virial * len(atoms)
        factor = _factor(ENERGY_UNITS, units["virial"]) / float(atoms.cell.volume)
        virial = np.asarray(-factor * virial, dtype=np.float64)
    if stress is not None and virial is not None:
        limit = STRESS_DIGITS + STRESS_DIFFERENCE * max(np.abs(stress).max(), np.abs(virial).max())
        if (largest := np.abs(stress - virial).max()) > limit:
            raise ValueError(
                f"stress and -virial/V differ by {largest * EV_PER_A3_IN_GPA:.3g} GPa; correct "
                "`stress_unit` or `stress_sign`, or choose one of them with `stress_key` or "
                "`virial_key`"
            )
    if stress is not None or virial is not None:
        return stress if stress is not None else virial
    names = _lookalikes(atoms, "stress")
    if names and "stress" not in keys.optional:
        raise ValueError(
            f"no stress under a known name, but {', '.join(map(repr, names))} looks like one; "
            "pass `stress_key` or `virial_key`, or `allow_missing=['stress']` to do without"
        )
    return None


def _pick(atoms: Atoms, label: str, key: str | None, keys: LabelKeys) -> Any:
    """Value of a label in the file's units, or None."""
    found = _candidates(atoms, label, key, keys)
    if not found and label == "energy" and key is None:
        found = _candidates(atoms, label, "free_energy", keys)
    if found:
        (first, value), *others = found.items()
        for other, second in others:
            if value.shape != second.shape or not np.allclose(value, second, rtol=1e-9, atol=1e-7):
                raise ValueError(
                    f"{first} and {other} both contain {label} and disagree; "
                    f"choose one of them with `{label}_key`"
                )
        return value
    optional = "stress" if label == "virial" else label
    if optional in keys.optional or _needs_no_label(atoms, label):
        return None
    if key is not None:
        raise ValueError(f"{label} key {key!r} is not in the structure; it has {contents(atoms)}")
    names = [] if label in ("stress", "virial") else _lookalikes(atoms, label)
    names.sort(key=lambda name: bool(PER_ATOM.search(name)))
    if names:
        times = " (per atom; it is multiplied by the number of atoms)"
        raise ValueError(
            f"no {label} under a known name, but {', '.join(map(repr, names))} looks like it; "
            f"pass `{label}_key={names[0]!r}`{times if PER_ATOM.search(names[0]) else ''}, or "
            f"`allow_missing={[label]}` to do without"
        )
    return None


def _candidates(atoms: Atoms, label: str, key: str | None, keys: LabelKeys) -> dict[str, Array]:
    """Candidates for the label: description → value."""
    names = KNOWN_NAMES[label] if key is None else [key]
    results = _results(atoms)
    places: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("the calculator's", results),
        ("the structure's", _entries(atoms, label)),
    )
    found = {}
    for place, entries in places:
        for name, value in entries.items():
            matches = name == key if key is not None else name.lower() in names
            if not matches or value is None:
                continue
            array = _as_numbers(value, f"{place} {name!r}")
            if label == "energy":
                array = _scalar(array, f"{place} {name!r}")
            if label == "forces" and array.shape != (len(atoms), 3):
                raise ValueError(
                    f"{place} {name!r} should hold forces of shape ({len(atoms)}, 3); "
                    f"found {array.shape}"
                )
            if label in ("energy", "virial") and PER_ATOM.search(name):
                array = array * len(atoms)
            if label in ("stress", "virial"):
                order = "ase" if entries is results else keys.stress_order
                array = stress_tensor(array, order)
            if not np.isnan(array).all():
                found[f"{place} {name!r}"] = array
    return found


def _lookalikes(atoms: Atoms, label: str) -> list[str]:
    """Names of entries that look like a label by name and shape."""
    names = []
    for name, value in _entries(atoms, label).items():
        if not LOOKS_LIKE[label].search(name) or isinstance(value, str | bytes | bool | Mapping):
            continue
        shape = np.shape(value)
        fits = {
            "energy": shape in ((), (1,)),
            "forces": shape == (len(atoms), 3),
            "stress": int(np.prod(shape)) in (6, 9),
        }
        if fits[label]:
            names.append(name)
    return names


def contents(atoms: Atoms) -> str:
    """Content of a structure, for messages."""
    parts = {
        "info": sorted(_info(atoms)),
        "arrays": sorted(set(atoms.arrays) - {"numbers", "positions"}),
        "calculator": sorted(_results(atoms)),
    }
    return "; ".join(f"{place}: {', '.join(names) or 'nothing'}" for place, names in parts.items())


def _needs_no_label(atoms: Atoms, label: str) -> bool:
    """Return whether the label is zero by symmetry: the forces of an isolated atom."""
    return label == "forces" and len(atoms) == 1 and not atoms.pbc.any()


def _has_volume(atoms: Atoms) -> bool:
    """Return whether a stress is defined: periodic in all three directions."""
    return bool(atoms.pbc.all() and has_volume(atoms.cell.array))


def _entries(atoms: Atoms, label: str) -> dict[str, Any]:
    """Dictionary of the atoms that may contain a label."""
    # A database may keep its own forces in a dictionary; names of arrays come first.
    return {**_info(atoms), **atoms.arrays} if label == "forces" else _info(atoms)


def _info(atoms: Atoms) -> dict[str, Any]:
    """``info`` together with the separate dictionaries of ASE's databases."""
    info = dict(atoms.info)
    for name in ("data", "key_value_pairs"):
        inner = info.pop(name, None)
        if isinstance(inner, Mapping):
            info = {**inner, **info}
        elif inner is not None:
            info[name] = inner
    return info


def _results(atoms: Atoms) -> dict[str, Any]:
    """Results of the calculator, which must belong to these atoms.

    ``get_forces`` and similar methods are not used: they apply constraints, which zero forces.
    """
    calculator = atoms.calc
    if calculator is None or not getattr(calculator, "results", None):
        return {}
    if not _is_of(calculator, atoms):
        changes = set(calculator.check_state(atoms)) & {"positions", "numbers", "cell", "pbc"}
        if changes:
            raise ValueError(
                f"the {', '.join(sorted(changes))} changed after the labels had been computed"
            )
    return {name: value for name, value in calculator.results.items() if value is not None}


def _is_of(calculator: Any, atoms: Atoms) -> bool:
    """Return whether results belong exactly to these atoms; faster than ASE's own test."""
    known = getattr(calculator, "atoms", None)
    return known is not None and all(
        np.array_equal(first, second)
        for first, second in (
            (known.positions, atoms.positions),
            (known.numbers, atoms.numbers),
            (known.cell.array, atoms.cell.array),
            (known.pbc, atoms.pbc),
        )
    )


def _as_numbers(value: Any, place: str) -> Array:
    """Convert a value to float64."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{place} should be numbers; found {value!r}") from None


def _scalar(value: Array, place: str) -> Array:
    """Check that a value is a single number."""
    if value.size != 1:
        raise ValueError(f"{place} should be one number; found shape {value.shape}")
    return value.reshape(())
