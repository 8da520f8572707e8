"""Section: parity plots and errors on the test set."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from numpy.typing import NDArray

from tesseral.deploy.modelfile import ModelCard
from tesseral.report.content import (
    Block,
    Note,
    Picture,
    Section,
    Table,
    Verdict,
    number,
    table,
)
from tesseral.report.context import Context
from tesseral.report.figures import (
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    SHOWN_POINTS,
    color_of,
    dot_size,
    finish,
    panels,
    picture,
    plain_ticks,
)
from tesseral.report.verdicts import judge
from tesseral.training.evaluate import Predictions

Floats = NDArray[np.float64]

SHOWN_TYPES = 30


def accuracy(context: Context) -> Section:
    """Parity plots, errors by element and config type."""
    found = context.predictions
    energies = _above_references(found, context.card)
    errors = found.errors
    blocks: list[Block] = [_parity(found, energies)]
    blocks.append(_overall(found))
    kinds = errors["by_config_type"]
    if sum("forces" in part for part in kinds.values()) > 2:
        blocks.append(_types_picture(kinds))
    if len(kinds) > 1:
        blocks.append(_types_table(kinds))
    if np.isnan(found.stress_label).all():
        blocks.append(Note("The data have no stress, so stresses are not compared.", quiet=True))
    elif np.isnan(found.stress).all():
        blocks.append(Note("The structures have no cell and therefore no stress.", quiet=True))
    return Section(
        lead="Each dot compares the model with the reference calculation; on the diagonal they "
        "agree. Energies are per atom, relative to the model's reference energies. Free atoms are "
        "neither drawn nor counted in the verdict.",
        blocks=tuple(blocks),
        verdicts=tuple(_verdicts(found, energies)),
        numbers={
            "data": str(context.test.path),
            "content_hash": context.test.content_hash,
            **errors,
        },
    )


def rms(values: Floats) -> float:
    """Root mean square of the finite values; NaN if there are none."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.square(known).mean())) if known.size else float("nan")


def uncertainty(values: Floats) -> float:
    """Standard error of the mean of independent values; NaN if fewer than two are known."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")


def by_structure(values: Floats, found: Predictions) -> Floats:
    """Mean of the values of atoms (N,) in each structure, (G,); NaN where one is unknown."""
    return np.bincount(found.structure, values, len(found.n_atoms)) / found.n_atoms


def _above_references(found: Predictions, card: ModelCard) -> tuple[Floats, Floats]:
    """Labels and predictions relative to the reference energies of the atoms, (G,) eV/atom."""
    references = np.zeros(len(chemical_symbols))
    references[list(card.elements)] = card.reference_energies
    zero = np.bincount(found.structure, references[found.numbers], len(found.n_atoms))
    return (found.energy_label - zero) / found.n_atoms, (found.energy - zero) / found.n_atoms


def _verdicts(found: Predictions, energies: tuple[Floats, Floats]) -> list[Verdict]:
    errors = found.errors
    verdicts = []
    if "forces" in errors:
        size = 1000 * rms(found.forces_label)
        mae = errors["forces"]["mae"]
        share = 100 * mae / size if size > 0 else float("nan")
        shown = f"{number(mae)} meV/Å, {number(share)}% of their RMS {number(size)} meV/Å"
        each = by_structure(np.abs(found.forces - found.forces_label).mean(axis=1), found)
        error = 100 * 1000 * uncertainty(each) / size if size > 0 else 0.0
        verdicts.append(judge("force-error", share, error=error, shown=shown))
    off = np.abs(energies[1] - energies[0])[found.n_atoms > 1]
    if np.isfinite(off).any():
        mean, error = 1000 * float(np.nanmean(off)), 1000 * uncertainty(off)
        verdicts.append(judge("energy-error", mean, error=error))
    if "stress" in errors:
        size, mae = rms(found.stress_label), errors["stress"]["mae"]
        share = 100 * mae / size if size > 0 else float("nan")
        shown = f"{number(mae)} GPa, {number(share)}% of their RMS {number(size)} GPa"
        off = np.abs(found.stress - found.stress_label).reshape(len(found.n_atoms), -1).mean(axis=1)
        error = 100 * uncertainty(off) / size if size > 0 else 0.0
        verdicts.append(judge("stress-error", share, error=error, shown=shown))
    shares = _shares_by_type(found)
    if len(shares) > 1:
        worst = max(shares, key=lambda name: shares[name])
        shown = f"{worst or '(no type)'}: {number(shares[worst])}%"
        verdicts.append(judge("worst-type", shares[worst], shown=shown))
    return verdicts


def _shares_by_type(found: Predictions) -> dict[str, float]:
    """Force MAE of each config type in % of the RMS of its forces, or of all if that is larger.

    A relaxed surface has almost no forces, so its error cannot be compared with them.
    """
    overall = rms(found.forces_label)
    kind_of_atom = np.array(found.config_types)[found.structure]
    shares = {}
    for kind in sorted(set(found.config_types)):
        rows = kind_of_atom == kind
        off = np.abs(found.forces[rows] - found.forces_label[rows])
        size = max(rms(found.forces_label[rows]), overall)
        if np.isfinite(off).any() and rows.sum() > 1 and size > 0:
            shares[kind] = 100 * float(np.nanmean(off)) / size
    return shares


def _parity(found: Predictions, energies: tuple[Floats, Floats]) -> Picture:
    """Energy, forces by element, stress."""
    stress = np.isfinite(found.stress_label) & np.isfinite(found.stress)
    columns = 3 if stress.any() else 2
    figure, axes = panels(1, columns, width=9.2 if columns == 3 else 6.8, height=3.2)
    names = sorted(set(found.config_types))
    if 1 < len(names) <= 6:
        kinds = {n: np.array(found.config_types) == n for n in names}
    else:
        kinds = {"": np.ones(len(found.config_types), dtype=bool)}
    bound = found.n_atoms > 1  # free atoms would stretch the energy axis
    groups = {
        name: (energies[0][rows & bound], energies[1][rows & bound])
        for name, rows in kinds.items()
        if (rows & bound).any()
    }
    _scatter(axes[0, 0], groups)
    finish(axes[0, 0], "energy", "reference (eV/atom)", "model (eV/atom)", legend=len(groups) > 1)
    symbols = np.array(chemical_symbols)[found.numbers]
    groups = {
        s: (found.forces_label[symbols == s].ravel(), found.forces[symbols == s].ravel())
        for s in sorted(set(symbols.tolist()))
    }
    _scatter(axes[0, 1], groups)
    finish(axes[0, 1], "force components", "reference (eV/Å)", "model (eV/Å)", legend=True)
    if columns == 3:
        _scatter(axes[0, 2], {"": (found.stress_label[stress], found.stress[stress])})
        finish(axes[0, 2], "stress components", "reference (GPa)", "model (GPa)")
    what = "Energy by config type, forces by element" if len(kinds) > 1 else "Forces by element"
    return picture(figure, "parity plots", f"{what}. The grey line is exact agreement.")


def _scatter(axes: Axes, groups: dict[str, tuple[Floats, Floats]]) -> None:
    """Scatter plot of groups around the diagonal, thinned at random, largest group first."""
    rng = np.random.default_rng(0)
    colors = color_of(list(groups))
    total = sum(len(x) for x, _ in groups.values())
    ends = []
    for name, (x, y) in sorted(groups.items(), key=lambda item: -len(item[1][0])):
        known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if len(known) == 0:
            continue
        wanted = max(200, SHOWN_POINTS * len(x) // max(total, 1))
        if len(known) > wanted:
            known = rng.choice(known, wanted, replace=False)
        axes.plot(
            x[known], y[known], "o", ms=dot_size(total), alpha=0.5, mew=0, color=colors[name],
            label=name,
        )  # fmt: skip
        ends += [x[known].min(), x[known].max(), y[known].min(), y[known].max()]
    if ends:
        low, high = min(ends), max(ends)
        margin = 0.04 * (high - low) or 0.5
        axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, zorder=0)
    axes.set_aspect("equal")


def _overall(found: Predictions) -> Table:
    """Table of the errors, overall and by element."""
    errors = found.errors
    rows = [("all", *_cells(errors))]
    for symbol, part in errors["by_element"].items():
        if len(errors["by_element"]) > 1:
            rows.append((symbol, *_cells(part)))
    return table(
        _columns(), rows, f"{errors['n_structures']} structures, {errors['n_atoms']} atoms"
    )


def _columns() -> tuple[str, ...]:
    return ("", "energy MAE", "RMSE meV/atom", "force MAE", "RMSE meV/Å", "stress MAE", "RMSE GPa")


def _cells(part: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        number(part[name][kind]) if name in part else "–"
        for name in ("energy_per_atom", "forces", "stress")
        for kind in ("mae", "rmse")
    )


def _types_table(kinds: dict[str, Any]) -> Table:
    """Errors by config type as a collapsed table."""
    columns = _columns()
    rows = [
        (f"{name or '(no type)'} ({part['n_structures']})", *_cells(part))
        for name, part in kinds.items()
    ]
    made = table(columns, rows, f"Errors of all {len(kinds)} config types (number of structures)")
    return made._replace(folded=len(kinds) > 6)


def _types_picture(kinds: dict[str, Any]) -> Picture:
    """Energy and force errors of the config types as dots, the worst on top."""
    known = {name: part for name, part in kinds.items() if "forces" in part}
    names = sorted(known, key=lambda name: known[name]["forces"]["mae"])[-SHOWN_TYPES:]
    figure, axes = panels(1, 2, height=0.9 + 0.19 * max(len(names), 3))
    for axis, quantity, unit in (
        (axes[0, 0], "forces", "meV/Å"),
        (axes[0, 1], "energy_per_atom", "meV/atom"),
    ):
        for row, name in enumerate(names):
            part = known[name].get(quantity)
            if part is None:
                continue
            axis.plot([part["mae"], part["rmse"]], [row, row], color=LIGHT, linewidth=2, zorder=1)
            axis.plot(part["mae"], row, "o", color=BLUE, ms=4, label="MAE" if row == 0 else None)
            axis.plot(
                part["rmse"], row, "o", color=ORANGE, ms=4, label="RMSE" if row == 0 else None
            )
        axis.set_xscale("log")
        plain_ticks(axis.xaxis)
        finish(axis, f"{'force' if quantity == 'forces' else 'energy'} error", unit, "")
        axis.set_yticks(range(len(names)), [name or "(no type)" for name in names])
    axes[0, 1].set_yticklabels([])
    axes[0, 1].legend(frameon=False, fontsize=8, loc="lower right")
    return picture(
        figure, "errors by config type", "Errors by config type, the largest force errors on top."
    )
