"""Configuration that all architectures share; each has its own in ``architectures/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class PotentialConfig:
    """Size of a potential of any architecture.

    A subclass names its architecture, gives ``layers`` and ``channels`` a default, adds its own
    fields, and overrides the properties below where their answer is another one.

    Args:
        cutoff: distance in Å up to which atoms see each other in one layer.
        layers: message-passing layers; the range of the model is layers × cutoff.
        channels: feature channels of each harmonic component.
        spline_intervals: intervals of the radial splines between 0 and the cutoff.
        zbl: add the screened repulsion of the nuclei at short distances.

    Raises:
        ValueError: values that cannot make a model.
    """

    architecture: ClassVar[str]
    cutoff: float = 5.0
    layers: int
    channels: int
    spline_intervals: int = 8
    zbl: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot make a model."""
        if not 0 < self.cutoff < 50:
            raise ValueError(f"cutoff is {self.cutoff} Å; use a positive distance, usually 4 to 6")
        self._require(1, "layers", "channels")
        self._require(4, "spline_intervals")

    def _require(self, least: int, *names: str) -> None:
        """Refuse values of these fields that are too small."""
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")

    @property
    def edge_degree(self) -> int:
        """Highest degree of the edges' harmonics that the layers read."""
        return 1

    @property
    def random_orientations(self) -> bool:
        """Whether each training step turns the structures at random."""
        return False

    @property
    def linear_readout(self) -> bool:
        """Whether the energy is read from the last layer only, by a linear map."""
        return False

    @property
    def relaxed(self) -> bool:
        """Whether training may break the symmetry of rotations and reflections."""
        return False

    @property
    def has_grid_error(self) -> bool:
        """Whether rotations are exact only to the accuracy of a grid on the sphere."""
        return False
