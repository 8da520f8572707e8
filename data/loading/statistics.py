"""Statistics of the training set that a potential needs before the first step.

The reference energy E0 of each element comes from the first source that has it: energies of
isolated atoms given by the user; isolated atoms in the training set (structures of one atom without
a neighbour within the cutoff, of which the lowest energy is used; they stay in the training set);
ridge regression of the energies on the compositions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from tesseral.data.isolated import isolated_rows
from tesseral.data.neighbors import names, neighbor_list
from tesseral.data.store.read import Store

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

RIDGE = 1e-6  # variance of a composition fraction below which E0 is not fitted to it
MAX_FORCE_SAMPLE = 20_000  # structures
MAX_NEIGHBOR_SAMPLE = 500  # structures
MAX_CLOSEST_SAMPLE = 20_000  # structures


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Scales and reference energies of a training set.

    Args:
        elements: atomic numbers, sorted.
        reference_energies: E0 in eV, in the order of ``elements``.
        binding_energies: mean energy (eV) of an atom of each element relative to its E0; empty if
            all E0 come from least squares.
        force_rms: root mean square of the force components, eV/Å.
        mean_neighbors: mean number of neighbours of an atom within the cutoff.
        n_structures: number of structures.
        n_atoms: number of atoms.
    """

    elements: tuple[int, ...]
    reference_energies: tuple[float, ...]
    force_rms: float
    mean_neighbors: float
    n_structures: int
    n_atoms: int
    binding_energies: tuple[float, ...] = ()


def compute_statistics(
    store: Store,
    indices: Sequence[int] | Integers,
    cutoff: float,
    *,
    isolated_energies: Mapping[str, float] | None = None,
) -> Statistics:
    """Statistics of the training structures of a store.

    For large sets force RMS and number of neighbours are those of a reproducible random subset.

    Args:
        store: the dataset.
        indices: rows of the training structures.
        cutoff: cutoff (Å) of the neighbours.
        isolated_energies: chemical symbol → energy of the isolated atom, eV.

    Raises:
        ValueError: there are no structures, they have no energies, forces or neighbours, or
            ``isolated_energies`` has an unknown symbol.

    Warns:
        UserWarning: the compositions do not determine all reference energies.
    """
    rows = np.unique(np.asarray(indices, dtype=np.int64))
    if len(rows) == 0:
        raise ValueError(f"no structures of {store.path} are left to train on")
    counts = store.compositions()[rows]
    present = counts.sum(axis=0) > 0
    elements = tuple(z for z, there in zip(store.elements, present, strict=True) if there)
    isolated = isolated_rows(store, rows, cutoff)
    energies = reference_energies(
        elements,
        counts[:, present],
        store.energies[rows],
        isolated=isolated,
        given=isolated_energies or {},
        place=str(store.path),
    )
    binding: tuple[float, ...] = ()
    if isolated.any() or isolated_energies:
        bound = binding_energies(
            energies, counts[~isolated][:, present], store.energies[rows][~isolated]
        )
        binding = tuple(float(energy) for energy in bound)
    return Statistics(
        elements=elements,
        reference_energies=tuple(float(energy) for energy in energies),
        force_rms=_force_rms(store, rows),
        mean_neighbors=_mean_neighbors(store, rows, cutoff),
        n_structures=len(rows),
        n_atoms=int(counts.sum()),
        binding_energies=binding,
    )


def reference_energies(
    elements: tuple[int, ...],
    counts: Integers,
    energies: Array,
    *,
    isolated: NDArray[np.bool_],
    given: Mapping[str, float],
    place: str = "the training set",
) -> Array:
    """E0 of each element, (n_elements,) eV.

    Args:
        elements: atomic numbers.
        counts: (G, n_elements) atoms of each element in each structure.
        energies: (G,) eV, NaN where missing.
        isolated: (G,) true for isolated atoms.
        given: symbol → energy of the isolated atom, eV.
        place: source of the structures, for messages.

    Raises:
        ValueError: no structure has an energy, or ``given`` has an unknown symbol.
    """
    known = np.full(len(elements), np.nan)
    has_energy = np.isfinite(energies)
    if not has_energy.any():
        raise ValueError(f"no structure of {place} has an energy; a potential needs some")
    for column in range(len(elements)):
        alone = isolated & has_energy & (counts[:, column] == 1)
        if alone.any():
            known[column] = energies[alone].min()
    for symbol, energy in given.items():
        number = atomic_numbers.get(symbol)
        if number is None:
            raise ValueError(f"isolated_energies has {symbol!r}, which is not a chemical symbol")
        if not np.isfinite(energy):
            raise ValueError(f"isolated_energies has {energy} for {symbol}; it must be a number")
        if number in elements:
            known[elements.index(number)] = energy
    unknown = np.isnan(known)
    rows = has_energy & (counts[:, unknown].sum(axis=1) > 0)
    if not unknown.any():
        return known
    if not rows.any():
        missing = names([z for z, gap in zip(elements, unknown, strict=True) if gap])
        raise ValueError(
            f"no structure of {place} with {missing} has an energy, so its reference energy is "
            "unknown; give it with isolated_energies"
        )
    rest = energies - counts[:, ~unknown] @ known[~unknown]
    n_atoms = counts.sum(axis=1)[rows]
    fractions = counts[rows][:, unknown] / n_atoms[:, None]
    known[unknown] = fit_energies(fractions, rest[rows] / n_atoms)
    _warn_unidentified([z for z, gap in zip(elements, unknown, strict=True) if gap], fractions)
    return known


def binding_energies(references: Array, counts: Integers, energies: Array) -> Array:
    """Mean energy of each element's atoms relative to E0, (n_elements,) eV; zeros without energies.

    Args:
        references: (n_elements,) E0 in eV.
        counts: (G, n_elements) atoms of each element in structures that are not isolated atoms.
        energies: (G,) eV, NaN where missing.
    """
    known = np.isfinite(energies)
    if not known.any():
        return np.zeros_like(references)
    n_atoms = counts[known].sum(axis=1)
    rest = (energies[known] - counts[known] @ references) / n_atoms
    return fit_energies(counts[known] / n_atoms[:, None], rest)


def fit_energies(fractions: Array, targets: Array) -> Array:
    """Energies of elements from energies per atom by ridge regression about a common energy.

    Minimises ``mean (t - f·(c + d))² + RIDGE |d|²`` over the common energy c, which is not
    penalised, and the deviations d. The part that the compositions do not determine is thus equal
    for all elements, and the mean energy per atom is reproduced exactly.

    Args:
        fractions: (G, n) fraction of each element's atoms.
        targets: (G,) eV/atom.
    """
    n = fractions.shape[1]
    common = fractions.sum(axis=1, keepdims=True)
    data = np.concatenate([common, fractions], axis=1) / np.sqrt(len(targets))
    penalty = np.concatenate([np.zeros((n, 1)), np.sqrt(RIDGE) * np.eye(n)], axis=1)
    right = np.concatenate([targets / np.sqrt(len(targets)), np.zeros(n)])
    solution = np.linalg.lstsq(np.concatenate([data, penalty]), right, rcond=None)[0]
    result: Array = solution[0] + solution[1:]
    return result


def _warn_unidentified(elements: Sequence[int], fractions: Array) -> None:
    """Warn if the compositions do not determine the energies of the elements."""
    rank = np.linalg.matrix_rank(fractions / np.sqrt(len(fractions)), tol=np.sqrt(RIDGE))
    if rank < len(elements):
        warnings.warn(
            f"the compositions of the training set determine only {rank} of the reference energies "
            f"of {names(elements)}: only sums of them are right, which is enough for structures of "
            "the same composition; to use the potential for others, give the energies of isolated "
            "atoms with `isolated_energies`",
            UserWarning,
            stacklevel=4,
        )


def sample(rows: Integers, limit: int) -> Integers:
    """At most ``limit`` of the rows, a reproducible random choice, in order."""
    if len(rows) <= limit:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), limit, replace=False)
    return rows[np.sort(chosen)]


def _force_rms(store: Store, rows: Integers) -> float:
    """Root mean square of the known force components, eV/Å."""
    total, components = 0.0, 0
    for i in sample(rows, MAX_FORCE_SAMPLE):
        forces = store[i].forces
        known = forces[np.isfinite(forces)]
        total += float(known @ known)
        components += known.size
    if components == 0:
        raise ValueError(
            f"no training structure of {store.path} has forces; a potential needs them"
        )
    return float(np.sqrt(total / components))


def _mean_neighbors(store: Store, rows: Integers, cutoff: float) -> float:
    """Mean number of neighbours of an atom."""
    edges = atoms = 0
    for i in sample(rows, MAX_NEIGHBOR_SAMPLE):
        structure = store[i]
        edges += len(neighbor_list(structure.positions, structure.cell, structure.pbc, cutoff)[0])
        atoms += len(structure.numbers)
    if edges == 0:
        raise ValueError(
            f"no atom of {store.path} has a neighbour within the cutoff of {cutoff} Å; choose a "
            "larger cutoff, and check that the positions are in Å"
        )
    return edges / atoms


def closest_distances(store: Store, rows: Integers, elements: Sequence[int], reach: float) -> Array:
    """Smallest distance of each pair of elements in the structures, (n, n) Å.

    For large sets it is that of a reproducible random subset.

    Args:
        store: the dataset.
        rows: rows of the structures.
        elements: n atomic numbers, sorted, all those of the structures among them.
        reach: distance (Å) up to which pairs are searched; others are infinite.
    """
    smallest = np.full((len(elements), len(elements)), np.inf)
    for i in sample(np.asarray(rows), MAX_CLOSEST_SAMPLE):
        structure = store[i]
        senders, receivers, shifts = neighbor_list(
            structure.positions, structure.cell, structure.pbc, reach
        )
        vectors = structure.positions[receivers] - structure.positions[senders]
        lengths = np.linalg.norm(vectors + shifts @ structure.cell, axis=1)
        species = np.searchsorted(elements, structure.numbers)
        np.minimum.at(smallest, (species[senders], species[receivers]), lengths)
    symmetric: Array = np.minimum(smallest, smallest.T)
    return symmetric


def symbols(elements: Sequence[int]) -> tuple[str, ...]:
    """Chemical symbols of atomic numbers."""
    return tuple(chemical_symbols[z] for z in elements)
