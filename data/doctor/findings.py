"""Findings of a check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

Frame = Literal["lower", "upper"]  # in which the rows of the cell are this triangular matrix
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
ROWS_SHOWN = 6


class Fix(NamedTuple):
    """Unambiguous correction of a label; the fields apply in the order in which they are listed."""

    label: Literal["energy", "forces", "stress", "structure"]  # structure: left out altogether
    factor: float = float("nan")  # NaN removes the label
    per_volume: bool = False  # whether a stress is divided by the volume of the cell
    # For each of xx yy zz yz xz xy the component of the stress label that holds it, 1 to 6 in the
    # same order, negative for the opposite sign; empty if the order is right.
    components: tuple[int, ...] = ()
    shear: float = 1.0  # factor of yz, xz and xy
    frame: Frame | None = None  # frame of a stress or of forces, turned to that of the cell


class Finding(NamedTuple):
    """Finding in a dataset.

    An error would invalidate the training, a warning makes it worse than it could be, a note is
    only information.
    """

    severity: Severity
    check: str  # e.g. "stress sign"; the same for all files
    rows: tuple[int, ...]  # affected structures, 0-based, sorted; empty for the whole dataset
    found: str  # one sentence
    advice: str  # one sentence
    fix: Fix | None = None
    file: str = ""


def make_finding(
    severity: Severity,
    check: str,
    rows: Iterable[Any],
    found: str,
    advice: str,
    fix: Fix | None = None,
) -> Finding:
    """Create a finding with its rows as sorted integers."""
    return Finding(severity, check, tuple(sorted(int(row) for row in rows)), found, advice, fix)


def rows_text(rows: tuple[int, ...]) -> str:
    """The first rows and the number of further ones, as text."""
    shown = ", ".join(map(str, rows[:ROWS_SHOWN]))
    more = len(rows) - ROWS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, noun: str = "structure") -> str:
    """Number with its noun: ``1 structure``, ``2 structures``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
