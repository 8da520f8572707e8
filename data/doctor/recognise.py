"""Which unit a wrong factor between labels comes from."""

from __future__ import annotations

import math
from typing import NamedTuple

from tesseral.data.units import ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS

OPTIONS = {"energy": ENERGY_UNITS, "forces": FORCE_UNITS, "stress": STRESS_UNITS}


class Guess(NamedTuple):
    """A possible cause of a factor."""

    label: str
    unit: str
    sign: int
    factor: float  # what the label must be multiplied with


def recognise(label: str, ratio: float, tolerance: float) -> Guess | None:
    """The unit in which a label is probably given, nearest first; None if there is none.

    Args:
        label: energy, forces or stress.
        ratio: label over what it should be.
        tolerance: factor by which the ratio may be off.
    """
    if not math.isfinite(ratio) or ratio == 0:
        return None
    best, found = math.log(tolerance), None
    for unit, size in OPTIONS[label].items():
        off = abs(math.log(abs(ratio) * size))
        if off < best:
            best, found = (
                off,
                Guess(label, unit, 1 if ratio > 0 else -1, math.copysign(size, ratio)),
            )
    return found
