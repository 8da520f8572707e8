"""Configuration shared by all architectures; each has its own class in ``architectures/``."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

# Largest values of whole numbers; far above those of useful models, and small enough to be built.
# The tables of the harmonics are tested up to degree 12.
LARGEST = {"layers": 100, "mixings": 100, "spline_intervals": 10_000, "grid_points": 6000}
LARGEST_DEGREE = 12
LARGEST_OTHER = 4096  # channels, orientations


@dataclass(frozen=True, kw_only=True)
class PotentialConfig:
    """Size of a potential of any architecture.

    A subclass names its architecture, gives ``layers`` and ``channels`` a default, adds its own
    fields, and overrides the properties below where they differ.

    Args:
        cutoff: cutoff distance (Å) of the neighbours in one layer.
        layers: number of message-passing layers; the range of the model is layers × cutoff.
        channels: number of feature channels of each harmonic component.
        spline_intervals: number of intervals of the radial splines between 0 and the cutoff.
        zbl: add the screened repulsion of the nuclei at short distances.

    Raises:
        ValueError: a value is invalid.
    """

    architecture: ClassVar[str]
    cutoff: float = 5.0
    layers: int
    channels: int
    spline_intervals: int = 8
    zbl: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        self._check_types()
        if not 0 < self.cutoff < 50:
            raise ValueError(f"`cutoff` is {self.cutoff} Å; it must be positive, usually 4 to 6")
        self._require(1, "layers", "channels")
        self._require(4, "spline_intervals")

    def _check_types(self) -> None:
        """Check that all values have the type of their field, are finite, and not too large."""
        hints = get_type_hints(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            if not _has_type(value, hints[item.name]):
                expected = str(getattr(hints[item.name], "__name__", hints[item.name]))
                raise ValueError(f"`{item.name}` is {value!r:.60}; it must be of type {expected}")
            largest = LARGEST.get(item.name, LARGEST_OTHER)
            if item.name.startswith("l_max"):
                largest = LARGEST_DEGREE
            numbers = value if isinstance(value, list) else [value]
            if any(isinstance(n, int) and n > largest for n in numbers):
                raise ValueError(f"`{item.name}` is {value!r:.60}; it can be {largest} at most")

    def _require(self, least: int, *names: str) -> None:
        """Check that these fields are not too small."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` is {value}; it must be {least} or more")

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics used by the layers."""
        return 1

    @property
    def embedding_channels(self) -> int | None:
        """Channels of the elements' embedding, the input of the first layer; None: ``channels``."""
        return None

    @property
    def random_orientations(self) -> bool:
        """Whether each training step rotates the structures at random."""
        return False

    @property
    def linear_readout(self) -> bool:
        """Whether the energy is read from the last layer only, with a linear map."""
        return False

    @property
    def relaxed(self) -> bool:
        """Whether training may break the rotation and reflection symmetry."""
        return False

    @property
    def group(self) -> str | None:
        """Point group that training cannot break although ``relaxed``; None if there is none."""
        return None

    @property
    def has_grid_error(self) -> bool:
        """Whether rotations are exact only to the accuracy of a grid."""
        return False


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value has a type of the fields: numbers, bool, str, lists of these, or None."""
    if get_origin(hint) in (Union, UnionType):
        return any(_has_type(value, one) for one in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_has_type(v, get_args(hint)[0]) for v in value)
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) < 1e300 and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
