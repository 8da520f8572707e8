"""What a potential is made of, as plain validated values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tesseral.potentials.blocks.mixing import ACTIVATIONS, ORDERS

COMMON = ("architecture", "cutoff", "layers", "channels", "spline_intervals", "zbl")

# The options that each architecture has besides the common ones, and where its defaults are not
# those of ``PotentialConfig``. The command line takes them from here.
OPTIONS: dict[str, tuple[str, ...]] = {
    "facet": (
        *("l_max", "mixings", "l_max_edge", "l_max_message"),
        *("grid_channels", "grid_points", "activation", "order", "relaxed"),
    ),
    "egnn": ("move_atoms",),
    "nequip": (
        *("l_max", "channels_by_degree"),
        *("kinks", "gates", "odd_paths", "element_self_connection", "biases", "linear_readout"),
    ),
    "painn": (),
    "ponita": ("l_max", "orientations", "random_orientations"),
    "schnet": (),
    "segnn": ("l_max", "l_max_edge"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "facet": {},
    "egnn": {"channels": 64, "layers": 3},
    "nequip": {"channels": 32, "layers": 3, "l_max": 2},
    "painn": {"channels": 64, "layers": 3},
    "ponita": {"channels": 32, "l_max": 2, "random_orientations": True},
    "schnet": {"channels": 64, "layers": 3},
    "segnn": {"l_max": 2},
}
GATES = ("sigmoid", "silu")


@dataclass(frozen=True, kw_only=True)
class PotentialConfig:
    """Architecture and size of a potential.

    Args:
        architecture: facet, or one of those to compare it with, in docs/understand/systems.md.
        cutoff: distance in Å up to which atoms see each other in one layer.
        layers: message-passing layers; the range of the model is layers × cutoff.
        channels: feature channels of each harmonic component.
        l_max: highest degree of the atoms' spherical-harmonic features, or of ponita's kernels.
        mixings: rounds of mixing on the sphere in each layer; each raises the body order.
        l_max_edge: highest degree of the edges' harmonics; l_max if not given.
        l_max_message: highest degree of the features that a layer hands to the next one, l_max at
            most; a low one makes the convolutions after the first cheaper.
        grid_channels: channels of the mixing on the sphere.
        grid_points: points of the Lebedev grid; if not given, the smallest exact one of each
            mixing for ``product`` and 194 for ``silu`` (rotation error below 0.5 meV/Å).
        spline_intervals: intervals of the radial splines between 0 and the cutoff.
        orientations: points of the Lebedev grid of orientations; the rotation error falls with it.
        random_orientations: turn that grid at random in each training step, so that no orientation
            is preferred.
        activation: ``product`` (exactly equivariant) or ``silu`` (to the accuracy of the grid).
        order: number of factors of ``product``, 2 to 4. More than 2 are slower, since inference is
            not compiled then: MD takes three times as long with 3 (docs/understand/systems.md).
        relaxed: let training break the symmetry of rotations and reflections, as far as the data
            do: under an external field, on a substrate, in a polar phase.
        channels_by_degree: channels of degree 0, 1, … l_max, the first as many as ``channels``; as
            many in all degrees if not given.
        kinks: distances in Å at which the radial functions may have a kink in their slope; each a
            multiple of cutoff / spline_intervals. At the cutoff it makes forces end in a kink.
        gates: what the gates of steerable features apply to their scalar, ``sigmoid`` or ``silu``.
        odd_paths: couple degrees with an odd sum too. Features then have no parity, and the
            energies of mirror images may differ.
        element_self_connection: give each element matrices of its own for what an atom keeps of its
            features.
        biases: add a learned constant to the scalars that linear maps give.
        linear_readout: read the energy from the last layer's scalars only, by a linear map.
        move_atoms: let each layer displace the atoms that the next one sees.
        zbl: add the screened repulsion of the nuclei at short distances.
    """

    architecture: str = "facet"
    cutoff: float = 5.0
    layers: int = 2
    channels: int = 16
    l_max: int = 4
    mixings: int = 1
    l_max_edge: int | None = None
    l_max_message: int = 2
    grid_channels: int = 32
    grid_points: int | None = None
    spline_intervals: int = 8
    orientations: int = 26
    random_orientations: bool = False
    activation: str = "product"
    order: int = 2
    relaxed: bool = False
    channels_by_degree: list[int] | None = None
    kinks: list[float] | None = None
    gates: str = "sigmoid"
    odd_paths: bool = False
    element_self_connection: bool = True
    biases: bool = False
    linear_readout: bool = False
    move_atoms: bool = True
    zbl: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot make a model."""
        if self.architecture not in OPTIONS:
            raise ValueError(
                f"architecture {self.architecture!r} is not known; use {', '.join(OPTIONS)}"
            )
        own = (*COMMON, *OPTIONS[self.architecture])
        for item in fields(self):
            if item.name not in own and getattr(self, item.name) != item.default:
                raise ValueError(
                    f"{self.architecture} has no {item.name} ({getattr(self, item.name)} is given);"
                    f" it has {', '.join(own[1:])}"
                )
        if not 0 < self.cutoff < 50:
            raise ValueError(f"cutoff is {self.cutoff} Å; use a positive distance, usually 4 to 6")
        for name in ("layers", "channels", "mixings", "grid_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("l_max", "l_max_message"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.spline_intervals < 4:
            raise ValueError(f"spline_intervals is {self.spline_intervals}; use 4 or more")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is not one of {ACTIVATIONS}")
        if self.gates not in GATES:
            raise ValueError(f"gates are {self.gates!r}; use one of {', '.join(GATES)}")
        if self.channels_by_degree is not None:
            self._check_channels(self.channels_by_degree)
        if self.order not in ORDERS:
            raise ValueError(
                f"order is {self.order}; a product on the sphere can have {ORDERS[0]} to "
                f"{ORDERS[-1]} factors"
            )
        if self.activation != "product" and self.order != 2:
            raise ValueError(
                f"order is {self.order}, but activation {self.activation!r} multiplies nothing; "
                "leave order out, or use activation product"
            )
        if self.relaxed and self.l_max < 1:
            raise ValueError("relaxed needs directions; with l_max 0 there are none: use 1 or more")

    def _check_channels(self, channels: list[int]) -> None:
        if len(channels) != self.l_max + 1 or channels[0] != self.channels or min(channels) < 1:
            raise ValueError(
                f"channels_by_degree is {channels}; with l_max {self.l_max} it has "
                f"{self.l_max + 1} numbers of 1 or more, the first of them channels "
                f"({self.channels})"
            )

    @property
    def edge_degree(self) -> int:
        """Of the edges' harmonics: ``l_max_edge``, or ``l_max``, or 1 where there is neither."""
        if "l_max" not in OPTIONS[self.architecture]:
            return 1
        return self.l_max if self.l_max_edge is None else self.l_max_edge

    @property
    def message_degree(self) -> int:
        """``l_max_message``, or ``l_max`` where that is lower."""
        return min(self.l_max_message, self.l_max)
