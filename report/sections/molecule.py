"""Section: relaxation and vibrations of the lowest-energy molecule of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from tesseral.calculators.properties.relaxation import Relaxed
from tesseral.calculators.properties.vibrations import vibrations
from tesseral.data.neighbors import neighbor_list
from tesseral.data.units import covalent_radius
from tesseral.report.content import Picture, Section, Verdict, number, table
from tesseral.report.context import Context
from tesseral.report.figures import BLUE, GREY, RED, finish, panels, picture
from tesseral.report.verdicts import decide, judge

TIGHT, BOND, LOOSE = 1.1, 1.25, 1.5  # times the sum of the covalent radii


def molecule(context: Context) -> Section | None:
    """Change of the molecule on relaxation, and its vibrational frequencies."""
    if context.crystals or context.molecule is None:
        return None
    start, end = context.molecule
    bonds = _bonds(start)
    before, after = _lengths(start, bonds), _lengths(end.atoms, bonds)
    change = float(np.abs(after - before).max()) if len(bonds) else 0.0
    modes = vibrations(end.atoms)
    formula = start.get_chemical_formula()
    verdicts = [_kept(start, end, bonds, change), judge("modes", float(modes.frequencies.min()))]
    rows = [
        (_pair(start, (i, j)), f"{b:.4f}", f"{a:.4f}", f"{a - b:+.4f}")
        for (i, j), b, a in zip(bonds, before, after, strict=True)
    ]
    drop = float(end.atoms.get_potential_energy()) - float(start.get_potential_energy())
    header = ("bond", "in the data (Å)", "relaxed (Å)", "change (Å)")
    bonds_table = table(header, rows, "Bonds")._replace(folded=len(rows) > 6)
    facts = [
        ("energy gained by relaxation", f"{1000 * -drop:.1f} meV"),
        ("largest force at the end", f"{1000 * end.max_force:.2g} meV/Å ({end.steps} steps)"),
        ("zero-point energy", f"{modes.zero_point_energy:.4f} eV"),
        ("asymmetry of the Hessian", f"{number(modes.asymmetry)} eV/Å²"),
    ]
    return Section(
        lead=f"There are no crystals in the data. The lowest-energy molecule, {formula}, is "
        "relaxed by the model in vacuum (float64), and its harmonic vibrations are computed.",
        blocks=(_spectrum(modes.frequencies), table(("", formula), facts), bonds_table),
        verdicts=tuple(verdicts),
        numbers={
            "formula": formula,
            "positions_A": end.atoms.positions,
            "numbers": end.atoms.numbers,
            "frequencies_per_cm": modes.frequencies,
            "zero_point_energy_eV": modes.zero_point_energy,
            "energy_change_eV": drop,
            "largest_bond_change_A": change,
            "converged": end.converged,
        },
    )


def _kept(start: Atoms, end: Relaxed, bonds: list[tuple[int, int]], change: float) -> Verdict:
    """Verdict on broken and new bonds; a proton that moves within a hydrogen bond is neither."""
    broken = sorted(set(bonds) - set(_bonds(end.atoms, LOOSE)))
    formed = sorted(set(_bonds(end.atoms, TIGHT)) - set(_bonds(start, LOOSE)))
    if broken or formed:
        words = [f"{_pair(start, pair)} breaks" for pair in broken]
        words += [f"{_pair(start, pair)} forms" for pair in formed]
        return decide("molecule-kept", "fail", ", ".join(words), change)
    if not end.converged:
        return decide("molecule-kept", "warn", f"{number(change)} Å, not converged", change)
    return judge("molecule-kept", change, shown=f"{number(change)} Å")


def _pair(atoms: Atoms, pair: tuple[int, int]) -> str:
    """Names of two atoms."""
    return "–".join(f"{atoms[i].symbol}{i}" for i in pair)


def _bonds(atoms: Atoms, factor: float = BOND) -> list[tuple[int, int]]:
    """Pairs of atoms closer than ``factor`` times the sum of their covalent radii."""
    radii = np.array([covalent_radius(int(z)) for z in atoms.numbers])
    edges = neighbor_list(atoms.positions, np.zeros((3, 3)), False, 2 * factor * float(radii.max()))
    pairs = zip(edges.senders.tolist(), edges.receivers.tolist(), strict=True)
    return [
        (i, j)
        for i, j in pairs
        if i < j
        and np.linalg.norm(atoms.positions[i] - atoms.positions[j]) < factor * (radii[i] + radii[j])
    ]


def _lengths(atoms: Atoms, bonds: list[tuple[int, int]]) -> Any:
    return np.array([np.linalg.norm(atoms.positions[i] - atoms.positions[j]) for i, j in bonds])


def _spectrum(frequencies: Any) -> Picture:
    """Stick spectrum of the frequencies."""
    figure, axes = panels(1, 1, width=7.0, height=1.9)
    axis = axes[0, 0]
    for value in frequencies:
        axis.vlines(value, 0, 1, color=BLUE if value >= 0 else RED, linewidth=1.4)
    axis.axvline(0, color=GREY, linewidth=0.8)
    finish(axis, "", "frequency (cm⁻¹; negative: imaginary)", "")
    axis.set(yticks=[], ylim=(0, 1.1))
    axis.spines["left"].set_visible(False)
    return picture(figure, "vibrations", "Harmonic frequencies; all should be positive.")
