"""Pairs of elements that are closer to each other than any in the training set of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from tesseral.data.neighbors import neighbor_list, species_index
from tesseral.deploy.card import CLOSEST
from tesseral.potentials.blocks.short_range import square_pairs

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SAME = 0.95  # of the smallest distance in the training set; a little less is nothing new
SHOWN = 3  # pairs of elements in a sentence


class Approach(NamedTuple):
    """The smallest distance of two elements, where the training set has no pair as close."""

    pair: str  # such as Li–O
    distance: float  # Å
    closest: float  # Å, in the training set; 0 if it has no such pair within the cutoff
    place: int  # of the structure, or of the step of a simulation

    def words(self, cutoff: float, place: str) -> str:
        """A sentence; ``place`` is "in frame" or similar, empty if there is only one structure."""
        within = f"within the cutoff of {cutoff:g} Å"
        if self.closest:
            within = f"closer than {self.closest:.2f} Å"
        where = f" {place} {self.place}" if place else ""
        return (
            f"no {self.pair} pair {within} in the training set; found {self.distance:.2f} Å{where}"
        )


class KnownPairs:
    """Smallest distances of the pairs of elements in the training set of a model."""

    def __init__(self, elements: tuple[int, ...], cutoff: float, flat: Sequence[float]) -> None:
        """Make the table of distances.

        Args:
            elements: n atomic numbers of the model.
            cutoff: its cutoff (Å).
            flat: `CLOSEST` of the model card.
        """
        self.elements, self.cutoff = elements, cutoff
        self.closest = square_pairs(flat, len(elements)).numpy()
        self._limits = np.where(self.closest > 0, SAME * self.closest, self.cutoff)

    def closer(
        self, senders: Integers, receivers: Integers, lengths: Floats, places: Integers
    ) -> list[Approach]:
        """The pairs of elements that are closer than in the training set, with their smallest ones.

        Args:
            senders: (E,) index of the element of one atom of each pair of neighbours.
            receivers: (E,) index of the element of the other.
            lengths: (E,) Å.
            places: (E,) number of the structure.
        """
        near = np.flatnonzero(lengths < self._limits[senders, receivers])
        found: dict[tuple[int, int], Approach] = {}
        for edge in near[np.argsort(-lengths[near], kind="stable")].tolist():
            one, other = sorted((int(senders[edge]), int(receivers[edge])))
            pair = "–".join(chemical_symbols[self.elements[kind]] for kind in (one, other))
            closest = float(self.closest[one, other])
            found[one, other] = Approach(pair, float(lengths[edge]), closest, int(places[edge]))
        return list(found.values())

    def closer_in(self, atoms: Atoms, place: int = 0) -> list[Approach]:
        """The same for all pairs of atoms of a structure within the cutoff."""
        edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff)
        vectors = atoms.positions[edges.receivers] - atoms.positions[edges.senders]
        lengths = np.linalg.norm(vectors + edges.shifts @ atoms.cell.array, axis=1)
        kinds = species_index(atoms.numbers, self.elements)
        places = np.full(len(lengths), place)
        return self.closer(kinds[edges.senders], kinds[edges.receivers], lengths, places)

    def words(self, found: Iterable[Approach], place: str = "") -> str:
        """The pairs found in several structures in words, the closest first; empty for none."""
        smallest: dict[str, Approach] = {}
        for one in found:
            if one.distance < smallest.get(one.pair, one._replace(distance=np.inf)).distance:
                smallest[one.pair] = one
        worst = sorted(smallest.values(), key=lambda one: one.distance / (one.closest or np.inf))
        parts = [one.words(self.cutoff, place) for one in worst[:SHOWN]]
        if len(worst) > SHOWN:
            parts.append(f"and {len(worst) - SHOWN} more pairs of elements")
        return "; ".join(parts)


def known_pairs(
    uncertainty: Mapping[str, Any], elements: tuple[int, ...], cutoff: float
) -> KnownPairs | None:
    """The pairs of a model with this ``uncertainty`` on its card; None if that has none."""
    flat = uncertainty.get(CLOSEST)
    return KnownPairs(elements, cutoff, flat) if flat else None
