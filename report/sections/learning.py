"""Section: learning curves from the training logs."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from tesseral.report.content import Note, Section, number
from tesseral.report.context import Context
from tesseral.report.figures import (
    BLUE,
    GREY,
    ORANGE,
    finish,
    panels,
    picture,
    plain_ticks,
)

NAMES = {
    "validation/loss": "loss",
    "validation/energy_per_atom_mae": "energy",
    "validation/forces_mae": "forces",
    "validation/stress_mae": "stress",
    "train/loss": "train_loss",
    "train/energy_mae": "train_energy",
    "train/forces_mae": "train_forces",
}


def learning(context: Context) -> Section:
    """Loss and errors against training time."""
    folder = find_run(Path(context.config.model))
    lead = (
        "Errors during training. Validation structures are not used in training; a validation "
        "curve that rises while the training curve falls indicates overfitting."
    )
    if folder is None:
        model = Path(context.config.model)
        note = Note(
            f"There are no logs of the training: {model.parent / 'runs' / model.stem} has no "
            "csv/*/metrics.csv. Keep the run folder next to the model to see the curves here."
        )
        return Section(lead, (note,), (), {"why": note.text})
    train, validation = read_history(folder)
    settings = context.card.training
    structures = settings.get("data", {}).get("train", {}).get("structures")
    words = [
        (settings.get("steps"), "steps"),
        (settings.get("epochs"), "epochs"),
        (_minutes(settings.get("seconds")), "minutes"),
        (structures, "training structures"),
    ]
    facts = ", ".join(f"{number(value)} {name}" for value, name in words if value is not None)
    return Section(
        lead=lead,
        blocks=(_picture(train, validation), *([Note(f"{facts}.", quiet=True)] if facts else [])),
        numbers={"logs": str(folder), "validation": validation, "training_points": len(train)},
    )


def _minutes(seconds: Any) -> float | None:
    return seconds / 60 if isinstance(seconds, (int, float)) else None


def find_run(model: Path) -> Path | None:
    """Folder of the CSV logs of the training run of a model, as named by ``fit``."""
    for run in (model.parent / "runs" / model.stem, model.parent):
        if any(run.glob("csv/*/metrics.csv")):
            return run
    return None


def read_history(run: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Entries of training and of validation, with ``seconds`` and ``step``.

    A resumed training has several files; later entries of a step replace earlier ones. The time of
    a validation is interpolated between training entries at its step.
    """
    train: dict[float, dict[str, float]] = {}
    validation: dict[float, dict[str, float]] = {}
    for path in sorted(run.glob("csv/*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                entry = {NAMES.get(k, k): float(v) for k, v in row.items() if v}
                if "loss" in entry:
                    validation[entry["step"]] = entry
                elif "seconds" in entry:
                    train[entry["step"]] = entry
    points = sorted((step, entry["seconds"]) for step, entry in train.items())
    for step, entry in validation.items():
        entry["seconds"] = _interpolate(step, points)
    return [train[s] for s in sorted(train)], [validation[s] for s in sorted(validation)]


def _interpolate(step: float, points: list[tuple[float, float]]) -> float:
    """Seconds at a step."""
    if not points:
        return math.nan
    import numpy as np

    steps, seconds = np.array(points).T
    return float(np.interp(step, steps, seconds))


def _picture(train: list[dict[str, float]], validation: list[dict[str, float]]) -> Any:
    stress = any("stress" in entry for entry in validation)
    wanted = [
        ("loss", "loss"),
        ("energy", "energy MAE (meV/atom)"),
        ("forces", "force MAE (meV/Å)"),
    ]
    wanted += [("stress", "stress MAE (GPa)")] if stress else []
    figure, axes = panels(1, len(wanted), height=2.7)
    for axis, (name, label) in zip(axes[0], wanted, strict=True):
        for entries, key, color, text, width in (
            (train, f"train_{name}", GREY, "training", 0.6),
            (validation, name, BLUE if name != "energy" else ORANGE, "validation", 1.4),
        ):
            points = [(e["seconds"] / 60, e[key]) for e in entries if key in e]
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, color=color, linewidth=width, label=text)
        axis.set_yscale("log")
        plain_ticks(axis.yaxis)
        finish(axis, label, "minutes", "", legend=True)
    return picture(figure, "learning curves", "Validation (averaged weights) and training errors.")
