"""Atoms whose surroundings the model does not know, and the limit at which a simulation stops."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.closest import KnownPairs, known_pairs

SHOWN = 3  # atoms named in a reason
BRIEF = 20.0  # fs; see `Watch`
FAR = 4.0  # times the limit, at which a run stops at once


def limit_of(calculator: Calculator, stop: float | None, ignore: bool = False) -> float | None:
    """Expected force error (eV/Å) of an atom above which a simulation stops; None for no limit.

    Args:
        calculator: calculator of the simulation.
        stop: the limit, or None for that of the model.
        ignore: no limit in any case.

    Raises:
        ValueError: a limit is given, but the model does not know its uncertainty.
    """
    if ignore or not isinstance(calculator, TesseralCalculator):
        return None
    if stop is not None and not calculator.card.uncertainty:
        raise ValueError(
            f"`stop_uncertainty` is {stop}, but the model does not know its uncertainty; add it "
            "with train-potential calibrate"
        )
    return calculator.stop if stop is None else stop


def pairs_of(calculator: Calculator) -> KnownPairs | None:
    """Smallest distances in the training set of the model, if the calculator's model has them."""
    if not isinstance(calculator, TesseralCalculator):
        return None
    card = calculator.card
    return known_pairs(card.uncertainty, card.elements, card.config.cutoff)


def strange_atoms(atoms: Atoms, limit: float | None) -> str:
    """The atoms with an expected force error above a limit, in words; empty if there are none.

    Args:
        atoms: structure whose calculator has its results.
        limit: eV/Å.
    """
    errors = atoms.calc.results.get("forces_uncertainty") if limit is not None else None
    if errors is None:
        return ""
    above = np.nonzero(~(errors <= limit))[0]
    if not len(above):
        return ""
    worst = above[np.argsort(errors[above])[::-1]]
    names = [_described(atoms, int(atom), float(errors[atom])) for atom in worst[:SHOWN]]
    more = f" and {len(worst) - SHOWN} more" if len(worst) > SHOWN else ""
    return (
        f"the surroundings of {'; '.join(names)}{more} are unlike those of the training set (limit "
        f"{limit:.3g} eV/Å)"
    )


class Watch:
    """Whether a simulation has left what the model knows.

    In a liquid, atoms meet in rare ways and part again after some femtoseconds. A simulation stops
    if the limit is exceeded in all steps of ``BRIEF`` fs, or ``FAR`` times in one of them.
    """

    def __init__(self, limit: float | None, timestep: float) -> None:
        """Start.

        Args:
            limit: of `strange_atoms`; None never stops.
            timestep: time between two calls of `strange`, fs.
        """
        self._limit, self._allowed, self._above = limit, math.ceil(BRIEF / timestep), 0

    def strange(self, atoms: Atoms) -> str:
        """The atoms because of which the simulation must stop at this step, in words, or empty."""
        words = strange_atoms(atoms, self._limit)
        self._above = self._above + 1 if words else 0
        if words and self._above <= self._allowed and self._limit is not None:
            return words if strange_atoms(atoms, FAR * self._limit) else ""
        return words


def _described(atoms: Atoms, atom: int, error: float) -> str:
    """An atom, its expected force error, and its nearest neighbour."""
    text = f"atom {atom} ({atoms.symbols[atom]}, expected force error {error:.2f} eV/Å"
    if len(atoms) > 1:
        others = np.delete(np.arange(len(atoms)), atom)
        distances = atoms.get_distances(atom, others, mic=bool(atoms.pbc.any()))
        nearest = int(distances.argmin())
        text += f", nearest {atoms.symbols[others[nearest]]} at {distances[nearest]:.2f} Å"
    return text + ")"
