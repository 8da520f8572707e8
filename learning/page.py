"""Page about a run of `learn`: one HTML file with a section for each round."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms

from tesseral.files import write_text
from tesseral.learning.config import LearnConfig
from tesseral.learning.label import Round
from tesseral.report.content import NONE, Block, Note, Picture, Section, Table, number
from tesseral.report.figures import COLORS, dot_size, finish, panels, picture, plain_ticks
from tesseral.report.page.html import Chapter, Page, render

DRAWN = 6  # structures of a round
SHOWN = 40  # of a round in its table
VIEW = "10x,-80y"  # degrees, from which structures are drawn
HEADS = (
    "round",
    "labels",
    "failed",
    "forces MAE eV/Å",
    "forces RMSE eV/Å",
    "energy MAE meV/atom",
    "true / expected error",
    "coverage of 90% bounds",
)


def write_page(path: Path, rounds: Sequence[Round], config: LearnConfig) -> None:
    """Write the page.

    Args:
        path: HTML file.
        rounds: completed rounds.
        config: their options.
    """
    spent = sum(len(each.labels) for each in rounds)
    failed = sum(label.structure is None for each in rounds for label in each.labels)
    facts = (
        f"{spent} labels by {config.labels.calculator} in {len(rounds)} rounds"
        + (f", of which {failed} failed" if failed else ""),
        f"start structures: {', '.join(config.structures)}"
        + (f"; start data: {config.data}" if config.data else ""),
    )
    chapters = [Chapter("rounds", "Rounds", _overview(rounds))]
    chapters += [
        Chapter(f"round-{each.number}", f"Round {each.number}", _round(each)) for each in rounds
    ]
    footer = f"Made by tesseral {version('tesseral')}."
    write_text(path, render(Page("Learning in rounds", facts, tuple(chapters), footer)))


def _overview(rounds: Sequence[Round]) -> Section:
    """Errors of all rounds."""
    rows = [_row(each) for each in rounds]
    blocks: list[Block] = [Table(HEADS, tuple(rows))]
    if any(each.tested for each in rounds):
        blocks.append(_errors_picture(rounds))
    return Section(
        "The model at the start of each round is tested on the structures that it selects, before "
        "it learns them. They are the ones it knows least: its errors on ordinary structures are "
        "smaller.",
        tuple(blocks),
    )


def _row(each: Round) -> tuple[str, ...]:
    """Row of the table of rounds."""
    failed = sum(label.structure is None for label in each.labels)
    start = (str(each.number), str(len(each.labels)), str(failed))
    tested = each.tested
    if tested is None:
        return (*start, *[NONE] * (len(HEADS) - len(start)))
    calibration = tested["calibration"] or {}
    return (
        *start,
        number(tested["forces_mae"]),
        number(tested["forces_rmse"]),
        number(tested["energy_mae"]),
        number(calibration.get("ratio")),
        number(calibration.get("coverage"), 2),
    )


def _errors_picture(rounds: Sequence[Round]) -> Picture:
    """Errors against labels, and true against expected errors."""
    figure, axes = panels(1, 2, height=3.4)
    left, right = axes[0]
    spent = np.cumsum([0, *(len(each.labels) for each in rounds)])
    tested = [(n, each.tested) for n, each in enumerate(rounds) if each.tested]
    for name, key in (("MAE", "forces_mae"), ("RMSE", "forces_rmse")):
        left.plot([spent[n] for n, _ in tested], [t[key] for _, t in tested], "o-", label=name)
    left.set_ylim(bottom=0)
    finish(left, "errors on selected structures", "labels learned", "force (eV/Å)", legend=True)
    low, high = np.inf, 0.0
    for n, found in tested:
        pairs = np.array([found["expected"], found["true"]], dtype=np.float64)
        pairs = pairs[:, np.isfinite(pairs).all(axis=0) & (pairs > 0).all(axis=0)]
        if not pairs.size:
            continue
        low, high = min(low, pairs.min()), max(high, pairs.max())
        color = COLORS[n % len(COLORS)]
        size = dot_size(pairs.shape[1])
        right.plot(*pairs, ".", ms=size, color=color, label=f"round {rounds[n].number}")
    if high > 0:
        right.plot([low, high], [low, high], color="#888888", lw=0.8)
        right.set_xscale("log")
        right.set_yscale("log")
        plain_ticks(right.xaxis)
        plain_ticks(right.yaxis)
    finish(right, "each atom", "expected force error (eV/Å)", "true error (eV/Å)", legend=True)
    return picture(
        figure,
        "force errors of each round",
        "Errors of the forces on the structures just selected, before they are learned; right, "
        "those of each atom against the expected ones.",
    )


def _round(each: Round) -> Section:
    """What a round selected."""
    rows = []
    for label in each.labels[:SHOWN]:
        structure = label.structure
        if structure is None:
            rows.append((label.name, NONE, NONE, NONE, label.reason))
            continue
        forces = np.linalg.norm(structure.forces, axis=1)
        atoms = str(len(structure.numbers))
        how = f"{structure.config_type} ({structure.group})"
        rows.append((label.name, how, atoms, number(float(forces.max())), "labelled"))
    columns = ("structure", "how", "atoms", "largest force eV/Å", "label")
    blocks: list[Block] = []
    frames = _frames(each)
    if frames:
        blocks.append(_structures_picture(frames))
    if rows:
        caption = f"the first {SHOWN} of {len(each.labels)}" if len(each.labels) > SHOWN else ""
        blocks.append(Table(columns, tuple(rows), caption))
    else:
        blocks.append(Note("This round trained on the data given at the start.", quiet=True))
    theories = sorted({label.structure.theory for label in each.labels if label.structure})
    lead = f"Labels: {', '.join(filter(None, theories)) or 'no stated level of theory'}."
    return Section(lead, tuple(blocks))


def _frames(each: Round) -> list[Atoms]:
    """Some of the selected structures."""
    path = each.folder / "selected.extxyz"
    if not path.is_file() or not path.stat().st_size:
        return []
    return list(ase.io.iread(path, index=f":{DRAWN}", format="extxyz"))


def _structures_picture(frames: Sequence[Atoms]) -> Picture:
    """Drawings of structures, with their names and expected errors."""
    figure, axes = panels(1, max(3, len(frames)), height=2.2)
    for axis, frame in zip(axes[0], frames, strict=False):
        plot_atoms(frame, axis, rotation=VIEW)
        expected = frame.info.get("expected_force_error")
        below = "" if expected is None else f"\n±{expected:.2f} eV/Å"
        title = f"{frame.info.get('name', '')}\n{frame.info.get('config_type', '')}{below}"
        axis.set_title(title, fontsize=8)
    for axis in axes[0]:
        axis.set_axis_off()
    return picture(figure, "structures of the round", "The first structures that were selected.")
