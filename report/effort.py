"""How much a report computes: cells, times and sizes of a full one and of a quick one."""

from __future__ import annotations

from typing import NamedTuple


class Effort(NamedTuple):
    """Sizes of everything that takes time."""

    crystals: int  # at most so many different ones
    md_atoms: int  # of the supercell that MD runs on, at least
    md_time: float  # ps of each run at constant energy
    warm_up: float  # ps with a thermostat before
    hot_time: float  # ps
    vacancy_atoms: int  # of the supercell with a vacancy, at least
    phonon_length: float  # Å, least size of a supercell
    phonon_atoms: int  # up to which the supercell is twice the cutoff wide
    path_steps: int  # of 0.001 Å that an atom is moved in the material, each way
    structures: int  # of the test set, for symmetries and derivatives
    sizes: tuple[int, ...]  # numbers of atoms that are timed
    dimer_step: float = 0.02  # Å


FULL = Effort(4, 64, 2.0, 0.3, 2.0, 60, 10.0, 300, 300, 3, (8, 64, 512, 4096))
QUICK = Effort(3, 32, 0.5, 0.2, 0.5, 30, 10.0, 0, 120, 1, (8, 64, 512))
