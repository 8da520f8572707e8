"""Durations in options."""

import pytest

from tesseral.training.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:10:00", 600),
        ("1:02:03:04", 93784),
        ("00:10:00", 600),
        ("10:30", 630),
        ("90s", 90),
        ("10m", 600),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "5y", "1h 30", "h", "0s", "00:00", "-5m", "1:2:3:4:5"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)
