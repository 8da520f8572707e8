"""Section: expected errors of forces and energies against true ones; structures of another set."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import halfnorm, maxwell

from tesseral.data.store.read import open_store
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
    ORANGE,
    SHOWN_POINTS,
    dot_size,
    finish,
    panels,
    picture,
    plain_ticks,
)
from tesseral.report.sections.accuracy import by_structure
from tesseral.report.verdicts import judge
from tesseral.training.evaluate import expected_errors
from tesseral.training.uncertainty import coverages, roc_area

Floats = NDArray[np.float64]
Pairs = tuple[Floats, Floats]  # expected and true errors, above 0 and finite

GROUPS = 20  # of atoms with similar expected errors
FEW = 10  # structures, below which their ranks and energies say nothing


def uncertainty(context: Context) -> Section:
    """Calibration of the expected errors, and whether they tell another set apart."""
    lead = (
        "The error that the model expects of each force and energy, compared with the true one. "
        "Expected errors are averages: a single error may be several times larger."
    )
    found = context.predictions
    values = found.errors.get("uncertainty")
    if values is None:
        text = "The model does not know its uncertainty; train-potential calibrate adds it."
        return Section(lead, (Note(text),))
    forces = _known(found.uncertainty, found.force_error)
    off = np.abs(found.energy - found.energy_label)
    energies = _known(found.energy_uncertainty / found.n_atoms, off / found.n_atoms)
    areas = _outside(context, by_structure(found.uncertainty, found))
    blocks: list[Block] = []
    if len(forces[0]) > 1:
        blocks.append(_picture(forces, energies, areas))
    blocks.append(_table(values))
    if values.get("closer"):
        blocks.append(Note(f"Pairs of atoms: {values['closer']}."))
    return Section(
        lead=lead,
        blocks=tuple(blocks),
        verdicts=tuple(_verdicts(values, areas)),
        numbers={**values, **({} if areas is None else {"roc_area": roc_area(*areas)})},
    )


def _known(expected: Floats, true: Floats) -> Pairs:
    """Expected and true errors where both are known."""
    known = np.isfinite(true) & (expected > 0)
    return expected[known], true[known]


def _outside(context: Context, inside: Floats) -> Pairs | None:
    """Mean expected force errors of the structures of the test set and of the other set."""
    path, card = context.config.outside, context.card
    if path is None:
        return None
    potential, edges = context.calculator.potential, context.config.batch_edges
    return inside, expected_errors(potential, open_store(path), card.elements, edges)


def _verdicts(values: dict[str, Any], areas: Pairs | None) -> list[Verdict]:
    """Verdicts on what can be computed."""
    verdicts = []
    for key, part in (("force-bound", values), ("energy-bound", values["energy"])):
        count = part.get("structures", FEW)
        if part.get("coverage") is None or count < FEW:
            continue
        share = part["coverage"]
        error = np.sqrt(share * (1 - share) / count) if key == "energy-bound" else 0.0
        verdicts.append(judge(key, 100 * share, error=100 * float(error)))
    rank = values.get("rank_correlation_structures")
    if rank is not None and values["energy"]["structures"] >= FEW:
        verdicts.append(judge("uncertain-structures", rank, shown=f"rank correlation {rank:.2f}"))
    if areas is not None:
        area = roc_area(*areas)
        verdicts.append(judge("outside", area, shown=f"{area:.3f}"))
    return verdicts


def _table(values: dict[str, Any]) -> Table:
    """Numbers of forces and energies."""
    rows = []
    for name, part in (("forces of atoms", values), ("energies of structures", values["energy"])):
        if part.get("ratio") is None:
            continue
        cells = [number(part[key]) for key in ("ratio", "rank_correlation")]
        cells.append(number(part.get("rank_correlation_structures")))
        covered = part["coverage"]
        cells.append("–" if covered is None else f"{100 * covered:.0f}%")
        count = part["atoms"] if "atoms" in part else part["structures"]
        rows.append((name, f"{count}", *cells, number(part["miscalibration_area"])))
    heads = ("", "number", "mean true / expected", "rank correlation", "of structures")
    return table((*heads, "below the bound for 90%", "miscalibration area"), rows)


def _picture(forces: Pairs, energies: Pairs, areas: Pairs | None) -> Picture:
    """Expected against true errors, coverage against the stated one, and the other set."""
    figure, axes = panels(1, 2 if areas is None else 3, height=3.1)
    _errors(axes[0, 0], *forces)
    axis = axes[0, 1]
    lines = [("forces", forces, maxwell, BLUE)]
    if len(energies[0]) >= FEW:
        lines.append(("energies", energies, halfnorm, ORANGE))
    for name, pair, distribution, color in lines:
        levels, covered = coverages(*pair, distribution)
        axis.plot(100 * levels, 100 * covered, color=color, label=name, linewidth=1.4)
    axis.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, label="perfect calibration")
    axis.set_aspect("equal")
    labels = "% expected below a bound", "% of the true errors below it"
    finish(axis, "coverage", *labels, legend=True)
    caption = (
        "Left: one dot per atom, and the means of atoms with similar expected errors. Next: parts "
        "of the errors below the bounds for 1% to 99% that follow from the expected errors, with a "
        "normal distribution of the components; above the line, expected errors are too large."
    )
    if areas is not None:
        _histogram(axes[0, 2], *areas)
        caption += " Right: structures of the test set and of the other set."
    return picture(figure, "expected against true errors", caption)


def _errors(axis: Axes, expected: Floats, true: Floats) -> None:
    """True against expected force errors of atoms."""
    expected, true = 1000 * expected, 1000 * true
    floor = 1e-2 * float(np.median(true)) + 1e-9  # forces vanish at sites of perfect crystals
    shown = np.random.default_rng(0).permutation(len(true))[:SHOWN_POINTS]
    axis.plot(
        expected[shown], np.maximum(true[shown], floor), "o", ms=dot_size(len(true)), alpha=0.3,
        mew=0, color=BLUE,
    )  # fmt: skip
    groups = np.array_split(np.argsort(expected), min(GROUPS, len(expected)))
    means = np.array([(expected[group].mean(), true[group].mean()) for group in groups])
    axis.plot(*np.maximum(means.T, floor), "-o", ms=4, color="black", label="means")
    ends = float(expected.min()), float(expected.max())
    axis.plot(ends, ends, color=GREY, linewidth=0.8, label="perfect calibration")
    axis.set(xscale="log", yscale="log")
    plain_ticks(axis.xaxis)
    plain_ticks(axis.yaxis)
    labels = "expected force error (meV/Å)", "true force error (meV/Å)"
    finish(axis, "force errors", *labels, legend=True)


def _histogram(axis: Axes, inside: Floats, outside: Floats) -> None:
    """Mean expected errors of structures of two sets."""
    both = 1000 * np.concatenate([inside, outside])
    low = max(float(both.min()), 1e-9)
    edges = np.geomspace(low, max(float(both.max()), 1.01 * low), 30).tolist()
    for part, color, label in ((inside, BLUE, "test set"), (outside, ORANGE, "other set")):
        weights = np.full(len(part), 100 / max(len(part), 1))
        axis.hist(1000 * part, edges, weights=weights, histtype="step", color=color, label=label)
    axis.set_xscale("log")
    plain_ticks(axis.xaxis)
    labels = "mean expected force error (meV/Å)", "% of the structures"
    finish(axis, "another set", *labels, legend=True)
