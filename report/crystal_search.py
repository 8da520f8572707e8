"""Perfect crystals among the structures of a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import spglib
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.formula import Formula
from ase.units import GPa

from tesseral.calculators.properties.atoms import SYMPREC, empty_directions, quiet_spglib
from tesseral.calculators.properties.relaxation import relaxed
from tesseral.data.sources.opening import read_last_frame
from tesseral.data.store.read import Store
from tesseral.data.structures import atoms_from_structure

MAX_ATOMS = 64  # largest structure of the data that is considered
MAX_PRIMITIVE = 24  # atoms; larger primitive cells are defects rather than crystals
SMALL_FORCE = 0.05  # eV/Å
LOW_SYMMETRY = 16  # lower space groups are regarded as disorder
SMALL_STRESS = 0.5 * GPa  # eV/Å³
LOOKED_AT = 3000  # structures of a dataset
LOST = 50.0  # %, change of volume after which it is no longer the same crystal
WINDOW = 0.1  # eV/atom above the lowest energy of the same composition


class Crystal(NamedTuple):
    """A crystal, relaxed by the model."""

    formula: str
    group: str  # space group, international symbol
    number: int  # number of the space group
    atoms: Atoms  # primitive standard cell, relaxed, with the calculator
    source: str  # file or structure it was read from
    converged: bool
    volume_change: float  # %, by the relaxation
    group_before: str
    number_before: int
    problem: str = ""  # why its properties cannot be computed; empty if they can
    strained: bool = False  # whether it was under stress, so that its volume must change

    @property
    def name(self) -> str:
        """Formula and space group."""
        return f"{self.formula} ({self.group})"

    @property
    def cubic(self) -> bool:
        """Whether the crystal system is cubic."""
        return self.number >= 195


class Candidate(NamedTuple):
    """A symmetric structure of the data."""

    formula: str
    group: str
    number: int
    atoms: Atoms
    energy: float  # eV/atom; NaN without a label
    source: str
    strained: bool = False  # whether the label of its stress is large


def find_candidates(stores: Iterable[tuple[str, Store]]) -> list[Candidate]:
    """Symmetric periodic structures without forces, the lowest of each formula and space group.

    Returns:
        Compounds first, then by formula, then by energy.
    """
    lowest: dict[tuple[str, int], Candidate] = {}
    for name, store in stores:
        for row in _rows(store):
            structure = store[row]
            if np.isfinite(structure.forces).all():
                if np.abs(structure.forces).max() > SMALL_FORCE:
                    continue
            atoms = atoms_from_structure(structure)
            energy = structure.energy / len(atoms)
            found = classify(atoms, f"structure {row} of {name}", energy)
            if found is None or found.number < LOW_SYMMETRY or len(found.atoms) > MAX_PRIMITIVE:
                continue
            if any(empty_directions(atoms)):
                continue
            found = found._replace(strained=not np.abs(structure.stress).max() < SMALL_STRESS)
            key = (found.formula, found.number)
            if key not in lowest or not energy >= lowest[key].energy:
                lowest[key] = found
    floor: dict[str, float] = {}
    for found in lowest.values():
        floor[found.formula] = min(floor.get(found.formula, np.inf), found.energy)
    kept = [c for c in lowest.values() if not c.energy > floor[c.formula] + WINDOW]
    return sorted(kept, key=lambda c: (-len(Formula(c.formula).count()), c.formula, c.energy))


def _rows(store: Store) -> list[int]:
    """Periodic structures of moderate size; in a large set the lowest of each composition."""
    rows = np.flatnonzero(store.pbc.all(axis=1) & (store.n_atoms <= MAX_ATOMS))
    if len(rows) <= LOOKED_AT:
        return [int(row) for row in rows]
    energies = np.nan_to_num(store.energies[rows] / store.n_atoms[rows], nan=np.inf)
    shares = np.round(store.compositions()[rows] / store.n_atoms[rows, None], 6)
    kinds = np.unique(shares, axis=0, return_inverse=True)[1].ravel()
    each = max(1, LOOKED_AT // (int(kinds.max()) + 1))
    kept = [
        rows[kinds == kind][np.argsort(energies[kinds == kind], kind="stable")[:each]]
        for kind in range(int(kinds.max()) + 1)
    ]
    return sorted(int(row) for row in np.concatenate(kept)[:LOOKED_AT])


def read_candidates(paths: Iterable[str]) -> list[Candidate]:
    """Crystals read from files, the last structure of each.

    Raises:
        ValueError: a file that cannot be read or holds no crystal.
    """
    found = []
    for path in paths:
        atoms = read_last_frame(path)
        candidate = classify(atoms, path, float("nan")) if atoms.pbc.all() else None
        if candidate is None:
            raise ValueError(f"{path} is not a crystal: its pbc is {atoms.pbc.tolist()}")
        found.append(candidate)
    return found


def classify(atoms: Atoms, source: str, energy: float) -> Candidate | None:
    """Primitive standard cell, formula and space group; None if no symmetry is found."""
    try:
        with quiet_spglib():
            data = spglib.get_symmetry_dataset(_cell(atoms), symprec=SYMPREC)
        small = _standard(atoms, primitive=True)
    except Exception:  # versions of spglib report in different ways that they found nothing
        return None
    if data is None:
        return None
    formula = reduced_formula(small)
    return Candidate(formula, data.international, int(data.number), small, energy, source)


def reduced_formula(atoms: Atoms) -> str:
    """Formula in the order of electronegativity, as chemists write it: SiC, not CSi."""
    from pymatgen.core.composition import Composition  # imported here because it is slow

    counts = Formula(atoms.get_chemical_formula()).count()
    return str(Composition(counts).reduced_formula)


def conventional(atoms: Atoms) -> Atoms:
    """The conventional standard cell of a crystal, without a calculator."""
    return _standard(atoms, primitive=False)


def _standard(atoms: Atoms, *, primitive: bool) -> Atoms:
    with quiet_spglib():
        found = spglib.standardize_cell(_cell(atoms), to_primitive=primitive, symprec=SYMPREC)
    if found is None:
        raise ValueError("spglib finds no symmetry in this crystal")
    lattice, positions, numbers = found
    return Atoms(numbers=numbers, cell=lattice, scaled_positions=positions, pbc=True)


def _cell(atoms: Atoms) -> Any:
    """A crystal in the form that spglib expects."""
    return atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers


def relax_crystals(candidates: Iterable[Candidate], calculator: object, most: int) -> list[Crystal]:
    """Relax candidates with the model until the required number of different crystals is reached.

    A strained cell relaxes to the crystal that it was made from, and is dropped.
    """
    found: list[Crystal] = []
    for candidate in candidates:
        if len(found) >= most:
            break
        crystal = _relax(candidate, calculator)
        if not any((c.formula, c.number) == (crystal.formula, crystal.number) for c in found):
            found.append(crystal)
    return found


def _relax(candidate: Candidate, calculator: object) -> Crystal:
    """One candidate relaxed; ``problem`` says what went wrong."""
    atoms = candidate.atoms.copy()
    atoms.calc = calculator
    crystal = Crystal(
        formula=candidate.formula,
        group=candidate.group,
        number=candidate.number,
        atoms=atoms,
        source=candidate.source,
        converged=False,
        volume_change=math.nan,
        group_before=candidate.group,
        number_before=candidate.number,
        strained=candidate.strained,
    )
    try:
        end = relaxed(atoms, fmax=1e-4, steps=300)
    except (CalculationFailed, ValueError, np.linalg.LinAlgError) as error:
        return crystal._replace(problem=str(error))
    change = 100 * (end.atoms.get_volume() / atoms.get_volume() - 1)
    after = classify(end.atoms, candidate.source, math.nan)
    if after is None or not abs(change) < LOST:
        problem = f"its volume changes by {change:+.0f}% when it is relaxed"
        return crystal._replace(problem=problem, volume_change=change)
    after.atoms.calc = calculator
    return crystal._replace(
        group=after.group,
        number=after.number,
        atoms=after.atoms,
        converged=end.converged,
        volume_change=change,
    )
