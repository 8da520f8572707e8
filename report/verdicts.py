"""Verdicts: values compared with the thresholds of their claims."""

from __future__ import annotations

import math

from tesseral.report.claims import CLAIMS, Claim
from tesseral.report.content import Level, Verdict, limit, number


def judge(
    key: str, value: float, *, error: float = 0.0, shown: str | None = None, subject: str = ""
) -> Verdict:
    """Verdict on the value of a claim; NaN fails.

    If the value could lie on either side of a threshold within two standard errors, the verdict is
    ``open``; so is one that does not fail if its error is not known.

    Args:
        key: key in ``CLAIMS``.
        value: value in the unit of the claim.
        error: standard error of the value; NaN if it is not known.
        shown: text shown instead of the number and its unit.
        subject: crystal, pair, … that the value belongs to.
    """
    claim = CLAIMS[key]
    shown = shown or f"{number(value)} {claim.unit}"
    level = _level(claim, value)
    if math.isnan(error):
        undecided = level != "fail"
    else:
        undecided = {_level(claim, value + 2 * s * error) for s in (-1, 1)} != {level}
    if undecided:
        return decide(key, "open", f"{shown}: too uncertain to decide", value, subject)
    return decide(key, level, shown, value, subject)


def _level(claim: Claim, value: float) -> Level:
    """Level of an exact value."""
    sign = -1.0 if claim.at_least else 1.0
    if sign * value <= sign * claim.passes:
        return "pass"
    return "warn" if sign * value <= sign * claim.warns else "fail"


def decide(
    key: str, level: Level, shown: str, value: float | None = None, subject: str = ""
) -> Verdict:
    """A verdict whose level is known, for example if a crystal has fallen apart."""
    claim = CLAIMS[key]
    return Verdict(
        key=key,
        section=claim.section,
        claim=claim.text,
        subject=subject,
        value=value,
        unit=claim.unit,
        shown=shown,
        threshold=threshold(claim),
        level=level,
        reason=claim.reason,
    )


def not_computed(section: str, title: str, reason: str) -> Verdict:
    """The verdict on a section that could not be computed."""
    return Verdict(
        key="computed",
        section=section,
        claim=f"{title} could be computed",
        subject="",
        value=None,
        unit="",
        shown=reason,
        threshold="",
        level="warn",
        reason="the section's claims were not checked",
    )


def threshold(claim: Claim) -> str:
    """Both thresholds as text."""
    sign = "≥" if claim.at_least else "≤"
    warns = f"warn {sign} {limit(claim.warns)}"
    if math.isinf(claim.passes):
        return f"none; {warns}"
    return f"{sign} {limit(claim.passes)}; {warns}"
