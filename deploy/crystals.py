"""Crystals on which a converted potential is compared with its original."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii


def rocksalts(elements: Sequence[int], calculator: Calculator) -> list[Atoms]:
    """Slightly distorted crystals of two elements each, which together contain every element.

    Args:
        elements: atomic numbers.
        calculator: given to all crystals.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(elements)
    crystals = []
    for first, second in zip(order[::2], np.roll(order, -1)[::2], strict=True):
        side = 2.1 * (covalent_radii[first] + covalent_radii[second])
        atoms = bulk("NaCl", "rocksalt", a=side, cubic=True)
        atoms.numbers = np.where(atoms.numbers == 11, first, second)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = calculator
        crystals.append(atoms)
    return crystals
