"""Elements of a report: sections of text, tables and pictures, with verdicts and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Level = Literal["pass", "warn", "fail"]
NONE = "–"  # stands in tables where there is no value
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Verdict(NamedTuple):
    """One claim with what was found."""

    key: str  # of the table in claims.py
    section: str
    claim: str  # in plain words
    subject: str  # of which crystal, pair, temperature …; empty where there is one only
    value: float | None
    unit: str
    shown: str  # the value as text, with its unit
    threshold: str
    level: Level
    reason: str  # of the threshold


class Table(NamedTuple):
    """A compact table; the first column is left-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    folded: bool = False  # behind a line that opens it
    words: bool = False  # all columns hold text, left-aligned and wrapped


class Picture(NamedTuple):
    """An image as a data URI."""

    uri: str
    alt: str
    caption: str
    width: int = 930  # CSS pixels, so that all letters are of one size


class Note(NamedTuple):
    """A sentence: what is missing and why, or a quiet remark."""

    text: str
    quiet: bool = False


Block = Table | Picture | Note


class Section(NamedTuple):
    """One part of the page."""

    lead: str  # what is shown and how to read it, in a sentence or two
    blocks: tuple[Block, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    numbers: dict[str, Any] = {}  # everything that report.json is to hold of it


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """A table from any sequences of text, without columns in which nothing is known."""
    kept = [
        i for i in range(len(columns)) if i == 0 or not rows or any(row[i] != NONE for row in rows)
    ]
    shown = tuple(tuple(row[i] for i in kept) for row in rows)
    return Table(tuple(columns[i] for i in kept), shown, caption)


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: so many significant digits, powers of ten where they are short."""
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
    """A threshold for people, without digits that mean nothing."""
    return f"{value:g}".replace("-", "−") if abs(value) >= 1e-3 or value == 0 else number(value, 1)
