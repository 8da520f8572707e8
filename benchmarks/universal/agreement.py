"""Differences between the converted model and SevenNet's own calculator on 200 structures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write
from rich.console import Console

from benchmarks.sheets import Sheet, save
from benchmarks.universal.predictions import Array, Difference, difference, predict
from benchmarks.universal.programs import ours, peer
from benchmarks.universal.structures import structures

BARS = {"energy": 0.1, "forces": 1.0, "stress": 0.01}
UNITS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "GPa"}


def structure_file(folder: Path) -> Path:
    """Write the structures; the file is the same in every run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "structures.xyz"
    write(path, structures(), format="extxyz")
    return path


def largest(values: Array) -> tuple[float, int]:
    """The largest value that is not NaN, and its position."""
    where = int(np.nanargmax(values))
    return float(values[where]), where


def summary_sheet(frames: Sequence[Atoms], differences: Mapping[str, Difference]) -> Sheet:
    """Maxima with their positions, and means, of each comparison."""
    n_elements = len({symbol for atoms in frames for symbol in atoms.symbols})
    sheet = Sheet(
        f"{len(frames)} structures of {n_elements} elements",
        ("", "largest", "mean", "at", "bar"),
        "For each structure: its energy, and the largest component of its forces and stress.",
    )
    for name, apart in differences.items():
        for what, unit in UNITS.items():
            values = getattr(apart, what)
            top, where = largest(values)
            info = frames[where].info
            place = f"{info['sort']}, {info['label']}"
            row = f"{what}, {unit}: {name}"
            sheet.rows.append(
                (row, f"{top:.2g}", f"{np.nanmean(values):.2g}", place, f"{BARS[what]:g}")
            )
    return sheet


def sort_sheet(frames: Sequence[Atoms], apart: Difference, title: str) -> Sheet:
    """The largest difference for each sort of structures."""
    sheet = Sheet(
        title,
        ("structures", "number", *(f"{what}, {unit}" for what, unit in UNITS.items())),
        "The largest difference of each sort.",
    )
    sorts = np.array([atoms.info["sort"] for atoms in frames])
    for sort in dict.fromkeys(sorts.tolist()):
        chosen = sorts == sort
        cells = []
        for values in apart:
            some = values[chosen]
            cells.append("–" if np.isnan(some).all() else f"{np.nanmax(some):.2g}")
        sheet.rows.append((sort, str(chosen.sum()), *cells))
    return sheet


def agreement_sheets(options: argparse.Namespace, terminal: Console) -> list[Sheet]:
    """Compare our results with SevenNet, and SevenNet with itself in float64."""
    path = structure_file(options.output)
    frames = read(path, ":")
    found = {
        program.name: predict(program, path, options.output)
        for program in (
            peer(options, "sevennet"),
            peer(options, "sevennet", dtype="float64"),
            ours(options),
        )
    }
    original, exact, converted = found.values()
    differences = {
        "ours and SevenNet": difference(frames, converted, original),
        "ours and SevenNet in float64": difference(frames, converted, exact),
        "SevenNet and itself in float64": difference(frames, original, exact),
    }
    content: dict[str, Any] = {
        name: {what: values.tolist() for what, values in apart._asdict().items()}
        for name, apart in differences.items()
    }
    content["structures"] = [atoms.info for atoms in frames]
    save(options.output / "agreement.json", content)
    return [
        summary_sheet(frames, differences),
        sort_sheet(frames, differences["ours and SevenNet"], "Ours and SevenNet, by sort"),
    ]
