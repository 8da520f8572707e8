"""Formation energies of vacancies in crystals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ase import Atoms

from tesseral.calculators.properties.atoms import copy_atoms
from tesseral.calculators.properties.relaxation import relaxed


class Vacancy(NamedTuple):
    """Formation energy ``E(N - 1) - E(N) + μ`` of one vacancy in a cell of N atoms."""

    symbol: str
    n_atoms: int  # N, without the vacancy
    unrelaxed: float  # eV, the other atoms at their lattice sites
    relaxed: float  # eV, at fixed cell
    chemical_potential: float  # eV, μ
    converged: bool


def vacancy_energies(
    crystal: Atoms,
    chemical_potentials: Mapping[str, float],
    *,
    fmax: float = 0.01,
    steps: int = 200,
) -> list[Vacancy]:
    """One vacancy for each element, at the first atom of that element.

    Args:
        crystal: relaxed supercell with a calculator, large enough for a vacancy; not changed.
        chemical_potentials: energy (eV) of an atom in its reservoir, by chemical symbol.
        fmax: convergence criterion of the relaxation at fixed cell: maximum force (eV/Å).
        steps: maximum number of steps of the relaxation.

    Raises:
        ValueError: an element has no chemical potential.
    """
    missing = sorted(set(crystal.get_chemical_symbols()) - set(chemical_potentials))
    if missing:
        raise ValueError(f"there is no chemical potential of {', '.join(missing)}; give one")
    perfect = float(crystal.get_potential_energy())
    found = []
    symbols = crystal.get_chemical_symbols()
    for symbol in dict.fromkeys(symbols):
        defect = copy_atoms(crystal)
        del defect[symbols.index(symbol)]
        offset = chemical_potentials[symbol] - perfect
        unrelaxed = float(defect.get_potential_energy()) + offset
        end = relaxed(defect, fmax=fmax, steps=steps, cell="fixed")
        energy = float(end.atoms.get_potential_energy()) + offset
        found.append(
            Vacancy(
                symbol=symbol,
                n_atoms=len(crystal),
                unrelaxed=unrelaxed,
                relaxed=energy,
                chemical_potential=chemical_potentials[symbol],
                converged=end.converged,
            )
        )
    return found
