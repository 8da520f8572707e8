"""Durations in options; read without importing PyTorch."""

from __future__ import annotations

import re

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``90s``, ``10m``, ``1h30m``, ``00:10:00`` or ``00:00:10:00``.

    Raises:
        ValueError: the text has none of these forms, or the duration is 0.
    """
    text = text.strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = 0.0
    if parts and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    elif re.fullmatch(r"(\d+:){1,3}\d+", text):
        for number, factor in zip(reversed(text.split(":")), (1, 60, 3600, 86400), strict=False):
            seconds += int(number) * factor
    if seconds <= 0:
        raise ValueError(
            f"{text!r} is not a duration; write days:hours:minutes:seconds as in 00:00:10:00, "
            "or 90s, 10m, 1h30m, 2d"
        )
    return seconds
