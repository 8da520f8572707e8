"""What a check reports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
ROWS_SHOWN = 6


class Fix(NamedTuple):
    """What mends a finding without a doubt: a label times a factor, NaN to forget it."""

    label: Literal["energy", "forces", "stress", "structure"]  # structure: left out altogether
    factor: float = float("nan")


class Finding(NamedTuple):
    """One thing found in a dataset.

    An error makes training wrong, a warning makes it worse than it could be, a note is for the
    record.
    """

    severity: Severity
    check: str  # e.g. "stress sign"; the same for all files
    rows: tuple[int, ...]  # structures concerned, from 0, sorted; empty where it is the whole set
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
    """A finding with its rows as sorted integers."""
    return Finding(severity, check, tuple(sorted(int(row) for row in rows)), found, advice, fix)


def rows_text(rows: tuple[int, ...]) -> str:
    """The first rows, and how many there are beside them."""
    shown = ", ".join(map(str, rows[:ROWS_SHOWN]))
    more = len(rows) - ROWS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, noun: str = "structure") -> str:
    """A number with its noun: ``1 structure``, ``2 structures``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
