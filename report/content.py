"""Elements of a report: sections of text, tables and pictures, with verdicts and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Level = Literal["pass", "warn", "fail", "open"]  # open: the data cannot decide
NONE = "–"  # shown in tables for a missing value
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Verdict(NamedTuple):
    """A claim with its result."""

    key: str  # of ``CLAIMS``
    section: str
    claim: str  # the text of the claim
    subject: str  # crystal, pair, temperature, …; empty if there is only one
    value: float | None
    unit: str
    shown: str  # the value as text, with its unit
    threshold: str
    level: Level
    reason: str  # reason for the threshold


class Table(NamedTuple):
    """A compact table; the first column is left-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    folded: bool = False  # collapsed until opened
    words: bool = False  # all columns hold text, left-aligned and wrapped


class Picture(NamedTuple):
    """An image as a data URI."""

    uri: str
    alt: str
    caption: str
    width: int = 930  # CSS pixels; gives the text of all figures the same size


class Note(NamedTuple):
    """A sentence about something missing and the reason, or a quiet remark."""

    text: str
    quiet: bool = False


Block = Table | Picture | Note


class Section(NamedTuple):
    """One part of the page."""

    lead: str  # what is shown and how to read it, one or two sentences
    blocks: tuple[Block, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    numbers: dict[str, Any] = {}  # content of report.json for this section


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """A table from sequences of text; columns without any value are dropped."""
    kept = [
        i for i in range(len(columns)) if i == 0 or not rows or any(row[i] != NONE for row in rows)
    ]
    shown = tuple(tuple(row[i] for i in kept) for row in rows)
    return Table(tuple(columns[i] for i in kept), shown, caption)


def number(value: float | None, digits: int = 3) -> str:
    """A number as text with the given significant digits; powers of ten where they are shorter."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -3 <= exponent < 6:
        text = f"{value:.{max(0, digits - 1 - exponent)}f}"
        whole = f"{value:,.0f}" if exponent >= digits else text
        return whole.replace("-", "−")
    mantissa = f"{value / 10.0**exponent:.{max(0, min(digits, 2) - 1)}f}"
    power = f"10{str(exponent).translate(SUPERSCRIPTS)}"
    return (power if mantissa == "1" else f"{mantissa}·{power}").replace("-", "−")


def limit(value: float) -> str:
    """A threshold as text, without meaningless digits."""
    return f"{value:g}".replace("-", "−") if abs(value) >= 1e-3 or value == 0 else number(value, 1)
