"""Sections: parity and errors on the test set; errors against the size of the force."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from tesseral.training.report.claims import judge
from tesseral.training.report.content import Block, Note, Section, Table, Verdict, number, table
from tesseral.training.report.context import Context
from tesseral.training.report.figures import (
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    color_of,
    finish,
    panels,
    picture,
)
from tesseral.training.report.predictions import Predictions

Floats = NDArray[np.float64]

SHOWN_POINTS = 12_000  # of a scatter plot
SHOWN_TYPES = 30
FLOOR = 0.05  # of the overall force RMS: below it, a relative error means nothing


def accuracy(context: Context) -> Section:
    """Parity plots, errors by element and config type."""
    found = context.predictions
    errors = found.errors
    blocks: list[Block] = [_parity(found)]
    blocks.append(_overall(found))
    kinds = errors["by_config_type"]
    if len(kinds) > 1:
        blocks += [_types_picture(kinds), _types_table(kinds)]
    if np.isnan(found.stress_label).all():
        blocks.append(Note("The data hold no stress, so that none could be compared."))
    elif np.isnan(found.stress).all():
        blocks.append(Note("The structures have no cell, and so no stress."))
    return Section(
        lead="Each dot compares the model with the reference calculation; dots on the diagonal are "
        "right. Energies are per atom and above the model's reference energies of free atoms.",
        blocks=tuple(blocks),
        verdicts=tuple(_verdicts(found)),
        numbers={
            "data": str(context.test.path),
            "content_hash": context.test.content_hash,
            **errors,
        },
    )


def rms(values: Floats) -> float:
    """Root mean square of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.square(known).mean())) if known.size else float("nan")


def _verdicts(found: Predictions) -> list[Verdict]:
    errors = found.errors
    verdicts = []
    if "forces" in errors:
        size = 1000 * rms(found.forces_label)
        mae = errors["forces"]["mae"]
        share = 100 * mae / size if size > 0 else float("nan")
        shown = f"{number(mae)} meV/Å, {number(share)}% of their RMS {number(size)} meV/Å"
        verdicts.append(judge("force-error", share, shown=shown))
    if "energy_per_atom" in errors:
        verdicts.append(judge("energy-error", errors["energy_per_atom"]["mae"]))
    if "stress" in errors:
        size, mae = rms(found.stress_label), errors["stress"]["mae"]
        share = 100 * mae / size if size > 0 else float("nan")
        shown = f"{number(mae)} GPa, {number(share)}% of their RMS {number(size)} GPa"
        verdicts.append(judge("stress-error", share, shown=shown))
    shares = _shares_by_type(found)
    if len(shares) > 1:
        worst = max(shares, key=lambda name: shares[name])
        shown = f"{worst or '(no type)'}: {number(shares[worst])}% of its RMS"
        verdicts.append(judge("worst-type", shares[worst], shown=shown))
    return verdicts


def _shares_by_type(found: Predictions) -> dict[str, float]:
    """Force MAE of each config type in % of the RMS of its forces."""
    floor = FLOOR * rms(found.forces_label)
    kind_of_atom = np.array(found.types)[found.structure]
    shares = {}
    for kind in sorted(set(found.types)):
        rows = kind_of_atom == kind
        off = np.abs(found.forces[rows] - found.forces_label[rows])
        size = max(rms(found.forces_label[rows]), floor)
        if np.isfinite(off).any() and rows.sum() > 1 and size > 0:
            shares[kind] = 100 * float(np.nanmean(off)) / size
    return shares


def _parity(found: Predictions) -> Any:
    """Energy, forces by element, stress."""
    stress = np.isfinite(found.stress_label) & np.isfinite(found.stress)
    columns = 3 if stress.any() else 2
    figure, axes = panels(1, columns, width=9.2 if columns == 3 else 6.8, height=3.2)
    names = sorted(set(found.types))
    if 1 < len(names) <= 6:
        kinds = {n: np.array(found.types) == n for n in names}
    else:
        kinds = {"": np.ones(len(found.types), dtype=bool)}
    groups = {n: (found.energy_label[rows], found.energy[rows]) for n, rows in kinds.items()}
    _scatter(axes[0, 0], groups)
    finish(axes[0, 0], "energy", "reference (eV/atom)", "model (eV/atom)", legend=len(groups) > 1)
    symbols = np.array(found.symbols)
    groups = {
        s: (found.forces_label[symbols == s].ravel(), found.forces[symbols == s].ravel())
        for s in sorted(set(found.symbols))
    }
    _scatter(axes[0, 1], groups)
    finish(axes[0, 1], "force components", "reference (eV/Å)", "model (eV/Å)", legend=True)
    if columns == 3:
        _scatter(axes[0, 2], {"": (found.stress_label[stress], found.stress[stress])})
        finish(axes[0, 2], "stress components", "reference (GPa)", "model (GPa)")
    what = "Energy by config type, forces by element" if len(kinds) > 1 else "Forces by element"
    return picture(figure, "parity plots", f"{what}. The grey line is exact agreement.")


def _scatter(axes: Axes, groups: dict[str, tuple[Floats, Floats]]) -> None:
    """Groups of points about the diagonal, thinned at random, largest group first."""
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
        axes.plot(x[known], y[known], ".", ms=3, alpha=0.6, mew=0, color=colors[name], label=name)
        ends += [x[known].min(), x[known].max(), y[known].min(), y[known].max()]
    if ends:
        low, high = min(ends), max(ends)
        margin = 0.04 * (high - low) or 0.5
        axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, zorder=0)
    axes.set_aspect("equal")


def _overall(found: Predictions) -> Table:
    """All errors and those by element."""
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
    """Errors by config type, behind a line that opens them."""
    columns = _columns()
    rows = [
        (f"{name or '(no type)'} ({part['n_structures']})", *_cells(part))
        for name, part in kinds.items()
    ]
    made = table(columns, rows, f"Errors of all {len(kinds)} config types (number of structures)")
    return made._replace(folded=len(kinds) > 6)


def _types_picture(kinds: dict[str, Any]) -> Any:
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
        finish(
            axis, f"{'force' if quantity == 'forces' else 'energy'} error", unit, "", legend=True
        )
        axis.set_yticks(range(len(names)), [name or "(no type)" for name in names])
    axes[0, 1].set_yticklabels([])
    return picture(
        figure, "errors by config type", "Errors by config type, the largest force errors on top."
    )


def force_size(context: Context) -> Section:
    """Force errors against the size of the force."""
    found = context.predictions
    size = np.linalg.norm(found.forces_label, axis=1)
    known = np.isfinite(size)
    if not known.any():
        return Section("The data hold no forces.")
    size, off = size[known], found.force_error[known]
    symbols = np.array(found.symbols)[known]
    edges = _bins(size)
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = off[(size >= low) & (size < high)]
        if len(inside) == 0:
            continue
        quantiles = np.quantile(inside, (0.5, 0.9, 1.0))
        middle = float(np.sqrt(max(low, 1e-3) * high))
        rows.append((float(low), float(high), middle, len(inside), *(float(q) for q in quantiles)))
    largest = size >= np.quantile(size, 0.9)
    relative = 100 * float(np.median(off[largest] / np.maximum(size[largest], 1e-12)))
    return Section(
        lead="The error of each atom's force against the size of the force itself. A good "
        "potential stays well below the dashed line, where the error is as large as the force.",
        blocks=(
            _size_picture(size, off, symbols, rows),
            table(
                ("|F| from (eV/Å)", "to", "atoms", "median error (meV/Å)", "90%", "largest"),
                [
                    (number(r[0]), number(r[1]), f"{r[3]}", *(number(1000 * q) for q in r[4:]))
                    for r in rows
                ],
            ),
        ),
        verdicts=(judge("large-forces", relative),),
        numbers={
            "bins": [
                dict(
                    zip(("low", "high", "middle", "atoms", "median", "q90", "max"), r, strict=True)
                )
                for r in rows
            ],
            "median_relative_error_of_largest_tenth_percent": relative,
        },
    )


def _bins(size: Floats) -> Floats:
    """Edges that are even in the logarithm."""
    top = float(size.max())
    low = max(0.02, min(0.1, 0.1 * top))
    edges = np.geomspace(low, max(top * 1.0001, 2 * low), 8)
    return np.concatenate([[0.0], edges])


def _size_picture(size: Floats, off: Floats, symbols: Any, rows: list[Any]) -> Any:
    figure, axes = panels(1, 1, width=6.6, height=3.6)
    axis = axes[0, 0]
    shown = np.random.default_rng(0).permutation(len(size))[:SHOWN_POINTS]
    names = sorted(set(symbols.tolist()))
    for symbol, color in color_of(names).items():
        mine = shown[symbols[shown] == symbol]
        axis.plot(
            np.maximum(size[mine], 1e-3), np.maximum(1000 * off[mine], 0.1), ".", ms=3, alpha=0.45,
            mew=0, color=color, label=symbol,
        )  # fmt: skip
    middles = [row[2] for row in rows]
    axis.plot(middles, [1000 * row[4] for row in rows], "-o", ms=4, color="black", label="median")
    axis.plot(middles, [1000 * row[5] for row in rows], ":", color="black", label="90% are below")
    ends = np.array([max(1e-3, size.min()), size.max()])
    axis.plot(ends, 1000 * ends, "--", color=GREY, linewidth=0.9, label="error = force")
    axis.set(xscale="log", yscale="log")
    finish(axis, "", "size of the reference force (eV/Å)", "error of the force (meV/Å)")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture(figure, "force error against force", "One dot an atom; the lines are quantiles.")
