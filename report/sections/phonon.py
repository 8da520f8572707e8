"""Section: phonon bands of the crystals, with references."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesseral.calculators.properties import phonons
from tesseral.report.content import Block, Section, Verdict, number, table
from tesseral.report.context import Context
from tesseral.report.crystal_search import Crystal, conventional
from tesseral.report.figures import BLUE, GREY, ORANGE, RED, finish, panels, picture
from tesseral.report.verdicts import judge

Floats = NDArray[np.float64]

CM_PER_THZ = 33.35641


def phonon_bands(context: Context) -> Section | None:
    """Band structure, lowest frequency, and deviation from reference frequencies."""
    found = context.sound_crystals
    if not found:
        return None
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    width = 9.2 if columns == 2 else 6.4
    figure, axes = panels(rows, columns, width=width, height=3.2 * rows)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    lines: list[tuple[str, ...]] = []
    verdicts: list[Verdict] = []
    numbers: dict[str, Any] = {}
    blocks: list[Block] = []
    for axis, crystal in zip(axes.flat, found, strict=False):
        constants = phonons.force_constants(crystal.atoms, length=_length(context, crystal))
        path = phonons.bands(constants)
        lowest = min(float(path.frequencies.min()), phonons.lowest_frequency(constants))
        _draw(axis, crystal, path)
        shown = f"lowest {lowest:.2f} THz".replace("-0.00", "0.00").replace("-", "−")
        verdicts.append(judge("imaginary", lowest, shown=shown, subject=crystal.name))
        highest = float(path.frequencies.max())
        lines.append(
            (
                crystal.name,
                f"{constants.n_atoms} atoms",
                f"{constants.n_displacements}",
                f"{lowest:.2f}".replace("-0.00", "0.00").replace("-", "−"),
                f"{highest:.2f} ({highest * CM_PER_THZ:.0f} cm⁻¹)",
            )
        )
        numbers[crystal.name] = {**path._asdict(), "lowest_THz": lowest, "highest_THz": highest}
        reference = context.references.phonons.get(crystal.formula)
        if reference is not None and crystal.cubic:
            _compare(axis, crystal, constants, path, reference, blocks, verdicts, numbers)
    header = ("crystal", "supercell", "displacements", "lowest (THz)", "highest (THz)")
    image = picture(
        figure,
        "phonon bands",
        "Frequencies along lines between points of high symmetry. Values below zero (red) are "
        "unstable modes. Rings: reference, paired with the modes of the model in ascending order.",
    )
    return Section(
        lead="Vibrational frequencies of each crystal. A stable crystal has no frequency below "
        "zero (imaginary). The LO-TO splitting of polar crystals is not included.",
        blocks=(image, table(header, lines), *blocks),
        verdicts=tuple(verdicts),
        numbers=numbers,
    )


def _length(context: Context, crystal: Crystal) -> float:
    """Size of the supercell: twice the cutoff if that is affordable."""
    effort = context.effort
    wanted = max(effort.phonon_length, 2 * context.cutoff)
    atoms = len(crystal.atoms) * wanted**3 / crystal.atoms.get_volume()
    return wanted if atoms <= effort.phonon_atoms else effort.phonon_length


def _draw(axis: Any, crystal: Crystal, path: phonons.Bands) -> None:
    for band in path.frequencies.T:
        axis.plot(path.distances, band, color=BLUE, linewidth=1.1)
        low = np.where(band < -0.05, band, np.nan)
        axis.plot(path.distances, low, color=RED, linewidth=1.6)
    for tick in path.ticks:
        axis.axvline(tick, color=GREY, linewidth=0.5)
    axis.axhline(0, color=GREY, linewidth=0.8)
    finish(axis, crystal.name, "", "frequency (THz)")
    axis.grid(visible=False)
    labels = _merged(path)
    axis.set_xticks(list(labels), [label.replace("G", "Γ") for label in labels.values()])
    axis.set_xlim(path.distances[0], path.distances[-1])


def _merged(path: phonons.Bands) -> dict[float, str]:
    """Labels by position; where the path jumps, the label has both names."""
    labels: dict[float, str] = {}
    for tick, label in zip(path.ticks, path.labels, strict=True):
        place = round(float(tick), 9)
        labels[place] = f"{labels[place]}|{label}" if place in labels else label
    return labels


def _compare(
    axis: Any,
    crystal: Crystal,
    constants: phonons.ForceConstants,
    path: phonons.Bands,
    reference: list[float],
    blocks: list[Block],
    verdicts: list[Verdict],
    numbers: dict[str, Any],
) -> None:
    """Comparison with the reference at the q points that fold to Γ of the cubic cell."""
    qpoints = phonons.commensurate_points(
        crystal.atoms.cell.array, conventional(crystal.atoms).cell.array
    )
    mine = phonons.frequencies(constants, qpoints)
    if mine.size != len(reference):
        return
    order = np.argsort(mine.ravel(), kind="stable")
    sorted_back = np.empty(mine.size)
    sorted_back[order] = np.sort(np.asarray(reference))
    theirs: Floats = sorted_back.reshape(mine.shape)
    mean = float(np.abs(theirs - mine).mean())
    share = 100 * mean / float(max(reference))
    shown = f"{number(mean)} THz, {number(share)}% of the highest"
    verdicts.append(judge("phonon-reference", share, shown=shown, subject=crystal.name))
    _rings(axis, path, qpoints, theirs)
    rows = [
        (_name(path, q), *(_both(m, t) for m, t in zip(m_row, t_row, strict=True)))
        for q, m_row, t_row in zip(qpoints, mine, theirs, strict=True)
    ]
    unique = list(dict.fromkeys(rows))
    header = ("point", *(f"mode {i + 1}" for i in range(mine.shape[1])))
    blocks.append(table(header, unique, f"{crystal.name}: model (reference), THz"))
    numbers[crystal.name]["reference"] = {
        "qpoints": qpoints, "model_THz": mine, "reference_THz": theirs, "mean_THz": mean,
    }  # fmt: skip


def _both(mine: float, theirs: float) -> str:
    """Frequencies of the model and of the reference as text."""
    return f"{mine:.2f} ({theirs:.2f})".replace("-0.00", "0.00").replace("-", "−")


def _rings(axis: Any, path: phonons.Bands, qpoints: Floats, theirs: Floats) -> None:
    """Draw the reference frequencies at their points on the path."""
    for place, q in zip(path.distances, path.qpoints, strict=True):
        for point, values in zip(qpoints, theirs, strict=True):
            if _same(q, point):
                axis.plot(
                    [place] * len(values), values, "o", ms=5, mfc="none", color=ORANGE, zorder=3,
                    clip_on=False,
                )  # fmt: skip


def _name(path: phonons.Bands, q: Floats) -> str:
    """Label of a point, or of a point equivalent to it by cubic symmetry."""
    for tick, label in zip(path.ticks, path.labels, strict=True):
        at = path.qpoints[int(np.argmin(np.abs(path.distances - tick)))]
        if _same(at, q):
            return label.replace("G", "Γ")
    for tick, label in zip(path.ticks, path.labels, strict=True):
        at = path.qpoints[int(np.argmin(np.abs(path.distances - tick)))]
        if np.allclose(np.sort(np.abs(at % 1.0)), np.sort(np.abs(q % 1.0)), atol=1e-6):
            return label.replace("G", "Γ")
    return "(" + " ".join(f"{value:g}" for value in q) + ")"


def _same(first: Floats, second: Floats) -> bool:
    """Whether two points differ by a reciprocal lattice vector."""
    off = first - second
    return bool(np.abs(off - np.rint(off)).max() < 1e-6)
