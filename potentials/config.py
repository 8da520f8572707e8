"""Configuration shared by all architectures; each has its own class in ``architectures/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


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
        if not 0 < self.cutoff < 50:
            raise ValueError(f"cutoff is {self.cutoff} Å; use a positive distance, usually 4 to 6")
        self._require(1, "layers", "channels")
        self._require(4, "spline_intervals")

    def _require(self, least: int, *names: str) -> None:
        """Check that these fields are not too small."""
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")

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
    def has_grid_error(self) -> bool:
        """Whether rotations are exact only to the accuracy of a grid."""
        return False
