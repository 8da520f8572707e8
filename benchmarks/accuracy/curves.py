"""Validation errors against time, and the time to reach an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Quantity = Literal["energy", "forces"]
CLOSE = 1.005  # two programs differ by rounding for the same model


class Point(NamedTuple):
    """One validation of a training."""

    seconds: float  # seconds since the first training step
    epochs: float  # passes over the training data
    energy: float  # MAE, meV/atom
    forces: float  # MAE of the components, meV/Å


Curve = list[Point]


class Reached(NamedTuple):
    """Our time to the error of a peer, and the peer's own time."""

    quantity: Quantity
    error: float  # error of the final model of the peer on the validation structures
    peer: float | None  # s, first validation of the peer that is as good
    ours: float | None  # s, first validation of ours that is as good; None if there is none

    @property
    def share(self) -> float | None:
        """Our time divided by that of the peer."""
        return self.ours / self.peer if self.ours is not None and self.peer else None


def first_time(curve: Sequence[Point], quantity: Quantity, error: float) -> float | None:
    """Seconds of the first validation with at most this error, or None.

    There is no interpolation: between two validations the later one counts.
    """
    return next(
        (point.seconds for point in curve if getattr(point, quantity) <= CLOSE * error), None
    )


def compare(ours: Sequence[Point], peer: Sequence[Point], error: dict[str, float]) -> list[Reached]:
    """Our times to the errors of a peer's final model.

    Args:
        ours: our validations.
        peer: the peer's validations.
        error: MAE of the peer's final model on the same structures by quantity.
    """
    quantities: tuple[Quantity, ...] = ("energy", "forces")
    return [
        Reached(
            quantity,
            error[quantity],
            first_time(peer, quantity, error[quantity]) or (peer[-1].seconds if peer else None),
            first_time(ours, quantity, error[quantity]),
        )
        for quantity in quantities
    ]


def epochs_that_fit(curve: Sequence[Point], seconds: float) -> int:
    """Number of epochs that fit into a time, from a trial whose first epoch may take longer.

    Args:
        curve: validations of the trial, one for each epoch, at least two.
        seconds: time to fill.

    Raises:
        ValueError: the trial was too short.
    """
    if len(curve) < 2:
        raise ValueError(f"the trial has {len(curve)} validations; 2 are needed")
    first, last = curve[0].seconds, curve[-1].seconds
    each = (last - first) / (len(curve) - 1)
    return max(1, 1 + int((seconds - first) / each))


def as_json(curve: Sequence[Point]) -> list[dict[str, Any]]:
    """JSON content for the result file."""
    return [point._asdict() for point in curve]
