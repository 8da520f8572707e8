"""Section: vacancies in the crystals."""

from __future__ import annotations

from ase import Atoms

from tesseral.calculators.properties.atoms import repeated
from tesseral.calculators.properties.vacancy import Vacancy, vacancy_energies
from tesseral.report.content import Section, number, table
from tesseral.report.context import Context
from tesseral.report.crystal_search import Crystal
from tesseral.report.verdicts import judge


def vacancies(context: Context) -> Section | None:
    """Energy of removing one atom of each element."""
    if not context.sound_crystals:
        return None
    elemental = {
        crystal.formula: float(crystal.atoms.get_potential_energy()) / len(crystal.atoms)
        for crystal in reversed(context.sound_crystals)
        if len(set(crystal.atoms.get_chemical_symbols())) == 1
    }
    rows, verdicts, numbers = [], [], {}
    for crystal in context.sound_crystals:
        cell = repeated(crystal.atoms, context.effort.vacancy_atoms)
        symbols = sorted(set(cell.get_chemical_symbols()))
        potentials = {symbol: _reservoir(symbol, elemental, context) for symbol in symbols}
        found = vacancy_energies(cell, {symbol: value for symbol, (value, _) in potentials.items()})
        numbers[crystal.name] = [vacancy._asdict() for vacancy in found]
        for vacancy in found:
            rows.append(_vacancy_row(crystal, vacancy, potentials[vacancy.symbol][1]))
        lowest = min(found, key=lambda vacancy: vacancy.relaxed)
        shown = f"{lowest.symbol}: {number(lowest.relaxed)} eV"
        verdicts.append(judge("vacancy", lowest.relaxed, shown=shown, subject=crystal.name))
    header = ("crystal", "vacancy", "cell", "unrelaxed (eV)", "relaxed (eV)", "reservoir")
    return Section(
        lead="E(N − 1) − E(N) + μ for one atom removed from a supercell of N atoms at fixed cell, "
        "where μ is the energy of an atom in the reservoir to which it is moved.",
        blocks=(table(header, rows),),
        verdicts=tuple(verdicts),
        numbers=numbers,
    )


def _reservoir(symbol: str, elemental: dict[str, float], context: Context) -> tuple[float, str]:
    """Energy of an atom (eV) in its elemental crystal, or alone in vacuum."""
    if symbol in elemental:
        return elemental[symbol], f"crystal of {symbol}"
    atom = Atoms(symbol)
    atom.calc = context.exact
    return float(atom.get_potential_energy()), "free atom (no elemental crystal here)"


def _vacancy_row(crystal: Crystal, vacancy: Vacancy, reservoir: str) -> tuple[str, ...]:
    end = number(vacancy.relaxed) + ("" if vacancy.converged else " (not converged)")
    cell = f"{vacancy.n_atoms} atoms"
    return (crystal.name, vacancy.symbol, cell, number(vacancy.unrelaxed), end, reservoir)
