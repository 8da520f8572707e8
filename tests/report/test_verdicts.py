"""Thresholds, numbers for people and for programs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tesseral.files import json_text
from tesseral.report.claims import CLAIMS
from tesseral.report.content import number
from tesseral.report.report import PARTS
from tesseral.report.verdicts import decide, judge, not_computed


@pytest.mark.parametrize(
    ("key", "value", "level"),
    [
        ("force-error", 10.0, "pass"),
        ("force-error", 10.1, "warn"),
        ("force-error", 20.1, "fail"),
        ("hot", 0.61, "pass"),
        ("hot", 0.55, "warn"),
        ("hot", 0.45, "fail"),
        ("hole", math.inf, "pass"),
        ("hole", 6.0, "warn"),
        ("hole", 1.0, "fail"),
        ("vacancy", -0.1, "fail"),
        ("drift", math.nan, "fail"),
        ("hot", math.nan, "fail"),
    ],
)
def test_a_value_is_held_against_its_limits(key, value, level):
    assert judge(key, value).level == level


@pytest.mark.parametrize(
    ("key", "value", "error", "level"),
    [
        ("drift", 11.0, 17.0, "open"),
        ("drift", 3.0, 3.0, "pass"),
        ("drift", 3.0, 4.0, "open"),
        ("drift", 100.0, 10.0, "fail"),
        ("drift", 3.0, math.nan, "open"),
        ("drift", 300.0, math.nan, "fail"),
        ("hot", 0.7, 0.01, "pass"),
        ("hot", 0.61, 0.01, "open"),
    ],
)
def test_a_value_that_its_error_carries_over_a_limit_is_undecided(key, value, error, level):
    verdict = judge(key, value, error=error)
    assert verdict.level == level
    assert ("too uncertain to decide" in verdict.shown) == (level == "open")


@pytest.mark.parametrize("key", CLAIMS)
def test_every_claim_can_pass_warn_and_fail(key):
    claim = CLAIMS[key]
    sign = -1 if claim.at_least else 1
    assert sign * claim.passes < sign * claim.warns < math.inf
    assert claim.reason and claim.text[0].isupper()


def test_every_claim_is_made_in_a_section():
    assert {claim.section for claim in CLAIMS.values()} <= {part.key for part in PARTS}


def test_a_verdict_shows_value_and_threshold():
    verdict = judge("drift", 12.3, subject="at 300 K")
    assert (verdict.shown, verdict.threshold) == ("12.3 meV/atom/ns", "≤ 10; warn ≤ 50")
    assert decide("hot", "fail", "it exploded").value is None
    assert not_computed("eos", "Equation of state", "no").level == "warn"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12.345, "12.3"),
        (-0.5, "−0.500"),
        (4409.2, "4,409"),
        (3.8e-12, "3.8·10⁻¹²"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


def test_numbers_for_programs_are_strict():
    content = {"a": np.array([1.0, np.nan]), "b": (np.float32(2), math.inf), "c": judge("hot", 1)}
    again = json.loads(json_text(content), parse_constant=pytest.fail)
    assert again["a"] == [1.0, None]
    assert again["b"] == [2.0, None]
    assert again["c"]["level"] == "pass"
    with pytest.raises(TypeError, match="cannot be written"):
        json_text({"a": object()})
