"""Report of an import: collected structure by structure, evaluated at the end, shown as a table."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tesseral.data.doctor.impossible import BOUNDS, energy_excess, guess, stress_excess
from tesseral.data.isolated import is_isolated
from tesseral.data.sources.settings import settings_differences
from tesseral.data.structures import Structure
from tesseral.data.units import EV_PER_A3_IN_GPA

FORCES_LIMIT = 300.0  # eV/Å; more is rarely intended
STRESS_LIMIT = 1000.0  # GPa
SETTINGS_LENGTH = 20_000  # characters in the store's attributes
PLACES_SHOWN = 5
SKIPPED_SHOWN = 10
COUNTERS = (
    "config_types",
    "conversions",
    "elements",
    "labels",
    "missing",
    "settings",
    "per_atom",
    "sources",
    "theories",
    "unread",
)


class Notes(NamedTuple):
    """Content of a file that was not imported."""

    dropped_stress: bool
    unread: list[str]
    settings: str
    free_energy_difference: float  # eV/atom
    contents: str  # content of the file, if a label is missing
    zero_forces: bool  # all forces are zero, but not by symmetry
    conversions: list[str]  # what was done to each label
    per_atom: str  # key or unit of an energy per atom
    states: dict[str, str]  # charge, spin …


@dataclass(kw_only=True)
class ImportReport:
    """Counts and ranges of the imported structures."""

    output: str = ""
    content_hash: str = ""
    structures: int = 0
    atoms: int = 0
    elements: Counter[int] = field(default_factory=Counter)
    config_types: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    periodic: int = 0
    groups: set[str] = field(default_factory=set)
    energy_range: tuple[float, float] = (np.inf, -np.inf)  # eV/atom
    largest_force: float = 0.0  # eV/Å
    stress_range: tuple[float, float] = (np.inf, -np.inf)  # GPa
    excess: dict[str, float] = field(default_factory=dict)  # label → largest value over its bound
    missing: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)  # of the first missing labels
    duplicates: int = 0
    dropped_stresses: int = 0
    free_energy_difference: float = 0.0  # eV/atom
    unread: Counter[str] = field(default_factory=Counter)
    per_atom: Counter[str] = field(default_factory=Counter)  # keys or units of energies per atom
    states: dict[str, Counter[str]] = field(default_factory=dict)  # charge, spin … → value → number
    theories: Counter[str] = field(default_factory=Counter)
    settings: Counter[str] = field(default_factory=Counter)  # full settings of the calculations
    conversions: Counter[str] = field(default_factory=Counter)  # what was done to the labels
    zero_forces: int = 0
    left_out: dict[str, Counter[str]] = field(default_factory=dict)  # what → source → number
    skipped: list[str] = field(default_factory=list)  # why found files were not imported
    warnings: list[str] = field(default_factory=list)
    contents: str = ""
    seen: array[int] = field(default_factory=lambda: array("Q"), repr=False)  # hashes

    def add(self, structure: Structure, place: str, notes: Notes) -> None:
        """Count one structure, found at ``place``."""
        n = len(structure.numbers)
        self.structures += 1
        self.atoms += n
        self.elements.update(structure.numbers.tolist())
        self.config_types[structure.config_type] += 1
        self.sources[structure.source] += 1
        self.theories[structure.theory] += 1
        self.groups.add(structure.group)
        volume = bool(structure.pbc.all())
        self.periodic += volume
        alone = is_isolated(n, structure.cell, structure.pbc)
        present = {
            "energy": bool(np.isfinite(structure.energy)),
            "forces": bool(np.isfinite(structure.forces).all()),
            "stress": bool(np.isfinite(structure.stress).all()),
        }
        for label, there in present.items():
            self.labels[label] += there
            needed = {"energy": True, "forces": not alone, "stress": volume and not alone}[label]
            if needed and not there:
                self.missing[label] += 1
                self.places.setdefault(label, []).append(place)
        if present["energy"]:
            self.energy_range = _widen(self.energy_range, structure.energy / n)
        if present["forces"]:
            largest = float(np.linalg.norm(structure.forces, axis=1).max())
            self.largest_force = max(self.largest_force, largest)
        if present["stress"]:
            for component in (structure.stress * EV_PER_A3_IN_GPA).ravel():
                self.stress_range = _widen(self.stress_range, float(component))
        self._exceed({"energy": energy_excess(structure), "stress": stress_excess(structure)})
        self.seen.append(_fingerprint(structure))
        self._note(notes)
        self._shorten()

    def merge(self, other: ImportReport) -> None:
        """Add the report of the structures that follow."""
        self.structures += other.structures
        self.atoms += other.atoms
        self.periodic += other.periodic
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.groups |= other.groups
        for limits in ("energy_range", "stress_range"):
            for value in getattr(other, limits):
                if np.isfinite(value):
                    setattr(self, limits, _widen(getattr(self, limits), value))
        self.largest_force = max(self.largest_force, other.largest_force)
        self._exceed(other.excess)
        for label, places in other.places.items():
            self.places.setdefault(label, []).extend(places)
        self.seen.extend(other.seen)
        for what, files in other.left_out.items():
            self.left_out.setdefault(what, Counter()).update(files)
        for name, values in other.states.items():
            self.states.setdefault(name, Counter()).update(values)
        self.skipped += other.skipped
        self._note(
            Notes(False, [], "", other.free_energy_difference, other.contents, False, [], "", {})
        )
        self.dropped_stresses += other.dropped_stresses
        self.zero_forces += other.zero_forces
        self._shorten()

    def add_left_out(self, counts: Counter[str], source: str) -> None:
        """Count what a reader has left out of a source."""
        for what, count in counts.items():
            if count:
                self.left_out.setdefault(what, Counter())[source] += count

    def refuse_missing(self, allowed: list[str]) -> None:
        """Reject structures without required labels.

        Args:
            allowed: labels that may be missing.

        Raises:
            ValueError: a label is missing; the message names the frames and the content of the
                file.
        """
        for label in ("energy", "forces"):
            number = self.missing[label]
            if not number or label in allowed:
                continue
            shown = ", ".join(self.places[label]) + (" …" if number > PLACES_SHOWN else "")
            raise ValueError(
                f"{number} of {self.structures} structures of {', '.join(self.sources)} have no "
                f"{label}: {shown}. The file has {self.contents}. Name the key with "
                f"`{label}_key`, or pass `allow_missing={[label]}`"
            )

    def attributes(self) -> dict[str, str]:
        """Attributes of the store: settings, conversions, and the theory if it is the same."""
        found = {}
        if len(self.theories) == 1 and any(self.theories):
            (found["theory"],) = self.theories
        if self.conversions:
            found["conversions"] = "; ".join(sorted(self.conversions))
        if self.settings:
            lines = [f"{count} structures: {text}" for text, count in self.settings.most_common()]
            found["settings"] = "\n".join(lines)[:SETTINGS_LENGTH]
        return found

    def finish(self) -> None:
        """Count duplicates and write the warnings."""
        self.duplicates = self.structures - len(np.unique(np.array(self.seen)))
        for what, files in self.left_out.items():
            self.warnings.append(f"{files.total()} {what}: {_counts(files)}")
        if self.skipped:
            number = len(self.skipped) - SKIPPED_SHOWN
            more = f" … and {number} more" if number > 0 else ""
            self.warnings.append(
                f"{len(self.skipped)} files were skipped: "
                f"{'; '.join(self.skipped[:SKIPPED_SHOWN])}{more}"
            )
        if differences := settings_differences(self.settings):
            self.warnings.append(
                "the structures were computed with different settings "
                f"({'; '.join(differences)}); to a model the difference is noise"
            )
        if self.missing.get("stress"):
            self.warnings.append(
                f"{self.missing['stress']} of {self.periodic} periodic structures have no stress"
            )
        for label in ("energy", "forces"):
            if self.missing.get(label):
                self.warnings.append(f"{self.missing[label]} structures have no {label} (allowed)")
        if self.duplicates:
            self.warnings.append(f"{self.duplicates} structures occur more than once")
        if self.dropped_stresses:
            self.warnings.append(
                f"{self.dropped_stresses} stresses of structures without a volume (not periodic "
                "in three directions) were left out"
            )
        if self.zero_forces:
            self.warnings.append(
                f"all forces of {self.zero_forces} structures are exactly zero, but not by "
                "symmetry; were they computed?"
            )
        for name, count in self.per_atom.items():
            self.warnings.append(
                f"{count} energies are per atom ({name}); they were multiplied by the numbers of "
                "atoms"
            )
        for name, values in self.states.items():
            if absent := self.structures - values.total():
                values = values + Counter({"not given": absent})
            if len(values) > 1:
                self.warnings.append(
                    f"{name} differs between the structures ({_counts(values)}); a model does not "
                    "know it, and to it the difference is noise"
                )
        if self.unread:
            found = ", ".join(f"{name} ({count})" for name, count in self.unread.most_common())
            self.warnings.append(f"not read, although they look like labels: {found}")
        if abs(self.free_energy_difference) > 1e-6:
            self.warnings.append(
                "the energy differs from the free energy by up to "
                f"{1000 * abs(self.free_energy_difference):.3g} meV/atom; forces belong to the "
                "free energy: choose it with `energy_key='free_energy'`"
            )
        for label, ratio in self.excess.items():
            if ratio > 1:
                self.warnings.append(
                    f"{label} of {ratio:.3g} times what any atoms can have ({BOUNDS[label]})"
                    f"{guess(label, ratio)}: is `{label}_unit` right?"
                )
        if self.largest_force > FORCES_LIMIT:
            self.warnings.append(
                f"the largest force is {self.largest_force:.0f} eV/Å; is `forces_unit` right?"
            )
        if max(map(abs, self.stress_range)) > STRESS_LIMIT and self.labels["stress"]:
            self.warnings.append(
                "the stress ranges over {:.0f} to {:.0f} GPa; is `stress_unit` right?".format(
                    *self.stress_range
                )
            )

    def table(self) -> Group:
        """Report for a terminal."""
        table = Table(
            title=Text(f"imported into {self.output}"), show_header=False, title_justify="left"
        )
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in self.rows():
            table.add_row(name, Text(value))
        return Group(table, *(Text(f"note: {text}", "yellow") for text in self.warnings))

    def rows(self) -> list[tuple[str, str]]:
        """Names and values of the table."""
        elements = [f"{chemical_symbols[z]} {count}" for z, count in sorted(self.elements.items())]
        low, high = self.energy_range
        rows = [
            ("structures", f"{self.structures}"),
            ("atoms", f"{self.atoms}"),
            ("elements", ", ".join(elements)),
            ("with energy", f"{self.labels['energy']}"),
            ("with forces", f"{self.labels['forces']}"),
            ("with stress", f"{self.labels['stress']} of {self.periodic} periodic"),
        ]
        if self.labels["energy"]:
            rows.append(("energy", f"{low:.4f} to {high:.4f} eV/atom"))
        if self.labels["forces"]:
            rows.append(("largest force", f"{self.largest_force:.3f} eV/Å"))
        if self.labels["stress"]:
            rows.append(("stress", "{:.2f} to {:.2f} GPa".format(*self.stress_range)))
        if any(self.config_types):
            rows.append(("config types", _counts(self.config_types)))
        if self.groups - {""}:
            rows.append(("groups", f"{len(self.groups - {''})}"))
        if any(self.theories):
            rows.append(("theory", _counts(self.theories)))
        rows += [("read as", text) for text in sorted(self.conversions)]
        rows += [("sources", _counts(self.sources)), ("content hash", self.content_hash[:16])]
        return rows

    def _note(self, notes: Notes) -> None:
        """Count the content of a file that was not imported, and what was done to the rest."""
        self.dropped_stresses += notes.dropped_stress
        self.zero_forces += notes.zero_forces
        self.unread.update(notes.unread)
        self.conversions.update(notes.conversions)
        if notes.settings:
            self.settings[notes.settings] += 1
        if abs(notes.free_energy_difference) > abs(self.free_energy_difference):
            self.free_energy_difference = notes.free_energy_difference
        self.contents = notes.contents or self.contents
        if notes.per_atom:
            self.per_atom[notes.per_atom] += 1
        for name, value in notes.states.items():
            self.states.setdefault(name, Counter())[value] += 1

    def _exceed(self, ratios: Mapping[str, float]) -> None:
        """Keep the largest ratios of labels to their bounds."""
        for label, ratio in ratios.items():
            self.excess[label] = max(ratio, self.excess.get(label, 0.0))

    def _shorten(self) -> None:
        """Drop the places that are not shown."""
        for places in self.places.values():
            del places[PLACES_SHOWN:]


def _fingerprint(structure: Structure) -> int:
    """Hash of a structure without its labels."""
    digest = hashlib.blake2b(digest_size=8)
    for part in structure[:4]:
        digest.update(np.ascontiguousarray(part).data)
    return int.from_bytes(digest.digest(), "little")


def _widen(limits: tuple[float, float], value: float) -> tuple[float, float]:
    return min(limits[0], value), max(limits[1], value)


def _counts(counter: Counter[str], most: int = 12) -> str:
    """Names with their numbers, the most frequent first."""
    parts = [f"{name or 'none'} {count}" for name, count in counter.most_common(most)]
    if len(counter) > most:
        parts.append(f"and {len(counter) - most} more")
    return ", ".join(parts)
