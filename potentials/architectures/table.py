"""Table of the architectures by name. A new one needs its file and a line in this table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import nn

from tesseral.potentials.architectures.dimenet import DimeNetConfig, dimenet_layers
from tesseral.potentials.architectures.egnn import EGNNConfig, egnn_layers
from tesseral.potentials.architectures.facet import FacetConfig, facet_layers
from tesseral.potentials.architectures.frames import FramesConfig, frames_layers
from tesseral.potentials.architectures.lieconv import LieConvConfig, lieconv_layers
from tesseral.potentials.architectures.mace import MACEConfig, mace_layers
from tesseral.potentials.architectures.nequip import NequIPConfig, nequip_layers
from tesseral.potentials.architectures.painn import PaiNNConfig, painn_layers
from tesseral.potentials.architectures.ponita import PONITAConfig, ponita_layers
from tesseral.potentials.architectures.schnet import SchNetConfig, schnet_layers
from tesseral.potentials.architectures.se3transformer import (
    SE3TransformerConfig,
    se3transformer_layers,
)
from tesseral.potentials.architectures.segnn import SEGNNConfig, segnn_layers
from tesseral.potentials.config import PotentialConfig


class Architecture(NamedTuple):
    """Configuration class of an architecture, and the function that makes its layers."""

    config: type[PotentialConfig]
    layers: Callable[[Any, int, float], Sequence[nn.Module]]  # config, n_species, mean_neighbors


ARCHITECTURES: dict[str, Architecture] = {
    "facet": Architecture(FacetConfig, facet_layers),
    "dimenet": Architecture(DimeNetConfig, dimenet_layers),
    "egnn": Architecture(EGNNConfig, egnn_layers),
    "frames": Architecture(FramesConfig, frames_layers),
    "lieconv": Architecture(LieConvConfig, lieconv_layers),
    "mace": Architecture(MACEConfig, mace_layers),
    "nequip": Architecture(NequIPConfig, nequip_layers),
    "painn": Architecture(PaiNNConfig, painn_layers),
    "ponita": Architecture(PONITAConfig, ponita_layers),
    "schnet": Architecture(SchNetConfig, schnet_layers),
    "se3transformer": Architecture(SE3TransformerConfig, se3transformer_layers),
    "segnn": Architecture(SEGNNConfig, segnn_layers),
}


def config_class(architecture: str) -> type[PotentialConfig]:
    """Configuration class of an architecture.

    Raises:
        ValueError: the architecture is unknown.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"`architecture` {architecture!r} is not known; use {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[architecture].config


def field_names(architecture: str) -> list[str]:
    """Names of the fields in the configuration of an architecture."""
    return [item.name for item in fields(config_class(architecture))]


def make_config(architecture: str = "facet", **values: Any) -> PotentialConfig:
    """Configuration of an architecture from values by name, as stored in a model card.

    Args:
        architecture: name in the table.
        values: fields of its configuration; the others have their defaults.

    Raises:
        ValueError: the architecture or a field is unknown, or a value is invalid.
    """
    known = field_names(architecture)
    for name in values:
        if name not in known:
            raise ValueError(no_such_field(architecture, name))
    return config_class(architecture)(**values)


def no_such_field(architecture: str, name: str) -> str:
    """Error message for a field that an architecture does not have, with the nearest known one."""
    known = field_names(architecture)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? It" if near else "it"
    return f"{architecture} has no {name}; {hint} has {', '.join(known)}"
