"""Section: two atoms in vacuum, for every pair of elements."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from tesseral.calculators.properties.dimer import DimerCurve, Hole, dimer_curve, find_hole
from tesseral.data.neighbors import neighbor_list
from tesseral.data.store.read import Store
from tesseral.data.units import covalent_radius
from tesseral.report.content import Picture, Section, Verdict, number, table
from tesseral.report.context import Context
from tesseral.report.figures import BLUE, GREY, LIGHT, ORANGE, RED, finish, panels, picture
from tesseral.report.verdicts import judge

SHORTEST = 0.5  # Å
WALL = 0.6  # fraction of the sum of the covalent radii at which the repulsion is measured
NOISE = 0.01  # eV; shallower holes are rounding errors
LOOKED_AT = 400  # maximum number of structures whose distances are measured
MOST_PAIRS = 15  # maximum number of curves drawn


def dimers(context: Context) -> Section:
    """Energy and force of every pair of elements, and holes at short distance."""
    pairs = list(combinations_with_replacement(context.symbols, 2))
    seen = closest_pairs(context)
    curves = [_curve(context, pair) for pair in pairs]
    holes = {curve.symbols: _hole(curve) for curve in curves}
    rows = []
    for curve in curves:
        hole = holes[curve.symbols]
        lowest = int(np.argmin(curve.energies))
        rows.append(
            (
                "–".join(curve.symbols),
                number(float(np.interp(SHORTEST, curve.distances, curve.energies))),
                f"{curve.distances[lowest]:.2f} Å, {number(curve.energies[lowest])} eV",
                _closest(seen, curve),
                "none" if hole is None else _describe(hole),
            )
        )
    of_data = (
        "" if context.symbols == context.card.symbols else " The elements are those of the data."
    )
    where = "training and test data" if context.train.store is not None else "test data"
    header = ("pair", "at 0.5 Å (eV)", "lowest", f"closest pair in {where}", "hole")
    return Section(
        lead="Two isolated atoms, from large distances down to 0.5 Å. At short distance the energy "
        "must rise all the way: if it falls again, atoms of a hot or dense system can fall into "
        "this hole. To the left of the closest distance in the data the model extrapolates."
        + of_data,
        blocks=(_curves_picture(curves, seen, holes), table(header, rows)),
        verdicts=(_verdict(holes), _wall(curves)),
        numbers={
            "–".join(curve.symbols): {
                "distances_A": curve.distances,
                "energies_eV": curve.energies,
                "forces_eV_per_A": curve.forces,
                "closest_in_data_A": seen.get(_key(curve.symbols)),
                "hole": None if (hole := holes[curve.symbols]) is None else hole._asdict(),
            }
            for curve in curves
        },
    )


def _curve(context: Context, pair: tuple[str, str]) -> DimerCurve:
    """Distances in even steps from 0.5 Å, or less for small elements such as hydrogen."""
    bond = sum(covalent_radius(atomic_numbers[symbol]) for symbol in pair)
    shortest = min(SHORTEST, WALL * bond)
    points = round((context.cutoff - shortest) / context.effort.dimer_step) + 1
    return dimer_curve(
        context.exact, pair, shortest=shortest, longest=context.cutoff, points=points
    )


def _wall(curves: list[DimerCurve]) -> Verdict:
    """Verdict on the lowest energy of all pairs at short distance, relative to their minimum."""
    heights = {}
    for curve in curves:
        height = float(np.interp(WALL * curve.bond, curve.distances, curve.energies))
        outside = curve.energies[curve.distances >= WALL * curve.bond]
        heights["–".join(curve.symbols)] = height - float(outside.min())
    lowest = min(heights, key=lambda name: heights[name])
    return judge("wall", heights[lowest], shown=f"{lowest}: {number(heights[lowest])} eV")


def _hole(curve: DimerCurve) -> Hole | None:
    hole = find_hole(curve)
    return None if hole is None or hole.depth < NOISE else hole


def _verdict(holes: dict[tuple[str, str], Hole | None]) -> Verdict:
    """Verdict on the hole with the lowest barrier."""
    found = {pair: hole for pair, hole in holes.items() if hole is not None}
    if not found:
        return judge("hole", math.inf, shown="no hole")
    pair, hole = min(found.items(), key=lambda item: item[1].barrier)
    return judge("hole", hole.barrier, shown=f"{'–'.join(pair)}: {_describe(hole)}")


def _describe(hole: Hole) -> str:
    return (
        f"{number(hole.depth)} eV deep below {hole.distance:.2f} Å, "
        f"behind {number(hole.barrier)} eV"
    )


def _key(symbols: tuple[str, str]) -> tuple[str, str]:
    first, second = sorted(symbols)
    return first, second


def _closest(seen: dict[tuple[str, str], float], curve: DimerCurve) -> str:
    value = seen.get(_key(curve.symbols))
    return "no such pair" if value is None else f"{value:.2f} Å"


def closest_pairs(context: Context) -> dict[tuple[str, str], float]:
    """Smallest distance (Å) of each pair of elements in the data, or in a sample of a large set."""
    stores = [context.test] + ([context.train.store] if context.train.store is not None else [])
    found: dict[tuple[str, str], float] = {}
    for store in stores:
        for row in np.unique(np.linspace(0, len(store) - 1, LOOKED_AT).astype(int)):
            _add_closest(store, int(row), context.cutoff, found)
    return found


def _add_closest(
    store: Store, row: int, cutoff: float, found: dict[tuple[str, str], float]
) -> None:
    structure = store[row]
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, min(cutoff, 4.0))
    vectors = (
        structure.positions[edges.receivers]
        - structure.positions[edges.senders]
        + edges.shifts @ structure.cell
    )
    lengths = np.linalg.norm(vectors, axis=1)
    ends = np.sort(
        np.stack([structure.numbers[edges.senders], structure.numbers[edges.receivers]]), axis=0
    )
    for first, second in np.unique(ends, axis=1).T:
        smallest = float(lengths[(ends[0] == first) & (ends[1] == second)].min())
        key = _key((chemical_symbols[first], chemical_symbols[second]))
        found[key] = min(found.get(key, math.inf), smallest)


def _curves_picture(
    curves: list[DimerCurve],
    seen: dict[tuple[str, str], float],
    holes: dict[tuple[str, str], Hole | None],
) -> Picture:
    shown = sorted(curves, key=lambda curve: holes[curve.symbols] is None)[:MOST_PAIRS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = panels(rows, columns, width=3.2 * columns + 0.4, height=2.6 * rows)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, curve in zip(axes.flat, shown, strict=False):
        known = seen.get(_key(curve.symbols))
        if known is not None:
            axis.axvspan(curve.distances[0], known, color=LIGHT, alpha=0.7, linewidth=0)
        axis.axhline(0, color=GREY, linewidth=0.7)
        axis.plot(curve.distances, curve.energies, color=BLUE, label="energy")
        axis.plot(curve.distances, curve.forces, color=ORANGE, linewidth=0.9, label="force (eV/Å)")
        hole = holes[curve.symbols]
        if hole is not None:
            axis.axvspan(curve.distances[0], hole.distance, color=RED, alpha=0.18, linewidth=0)
        deep = float(min(curve.energies.min(), curve.forces.min()))
        axis.set(yscale="symlog", xlim=(curve.distances[0], curve.distances[-1]))
        axis.set_ylim(min(1.6 * deep, -1.0), max(100.0, 2.0 * float(curve.energies.max())))
        finish(axis, "–".join(curve.symbols), "distance (Å)", "energy (eV)")
    axes.flat[0].legend(frameon=False, fontsize=8)
    return picture(
        figure,
        "dimer curves",
        "Energy relative to free atoms, and force (positive: repulsion), on axes that are linear "
        "from −1 to 1 and logarithmic beyond. Grey: closer than any such pair in the data. Red: a "
        "hole.",
    )
