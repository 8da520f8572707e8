"""Validation errors against time, and the time at which an error was reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Quantity = Literal["energy", "forces"]
CLOSE = 1.005  # two programs that evaluate the same model differ by rounding


class Point(NamedTuple):
    """One validation of a training."""

    seconds: float  # since the first training step
    epochs: float  # passes over the training data
    energy: float  # MAE, meV/atom
    forces: float  # MAE of the components, meV/Å


Curve = list[Point]


class Reached(NamedTuple):
    """Our time to a peer's error beside the peer's own."""

    quantity: Quantity
    error: float  # of the model that the peer delivers, on the validation structures
    peer: float | None  # s at which the peer's own validation was first as good
    ours: float | None  # s at which ours was; None: never

    @property
    def share(self) -> float | None:
        """Our time as a part of the peer's."""
        return self.ours / self.peer if self.ours is not None and self.peer else None


def first_time(curve: Sequence[Point], quantity: Quantity, error: float) -> float | None:
    """Seconds of the first validation with at most this error; None where there is none.

    Nothing is interpolated: between two validations the later one counts.
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
    """Number of epochs that fill a time, from a trial: the first one may take longer.

    Args:
        curve: of the trial, a point for each epoch, two at least.
        seconds: to fill.

    Raises:
        ValueError: the trial was too short.
    """
    if len(curve) < 2:
        raise ValueError(f"the trial has {len(curve)} validations; 2 are needed")
    first, last = curve[0].seconds, curve[-1].seconds
    each = (last - first) / (len(curve) - 1)
    return max(1, 1 + int((seconds - first) / each))


def as_json(curve: Sequence[Point]) -> list[dict[str, Any]]:
    """For the result file."""
    return [point._asdict() for point in curve]
