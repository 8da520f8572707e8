"""Conversion of a SevenNet checkpoint: weights copied, radial networks replaced by splines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tesseral.deploy.card import ModelCard
from tesseral.deploy.modelfile import build_potential
from tesseral.deploy.releases import INTERVALS, SEVENNET_NAMES, THEORIES
from tesseral.deploy.sevennet.original import (
    Original,
    check_settings,
    level_of,
    load_original,
)
from tesseral.deploy.sevennet.weights import by_element, fill_layer, linear_maps
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.message_passing import MessagePassing

CITATION = "Park et al., J. Chem. Theory Comput. 2024, 20, 4857"


def convert(
    source: str | Path, *, intervals: int = INTERVALS, modality: str | None = None
) -> tuple[MessagePassing, ModelCard]:
    """Model with the same results as a SevenNet checkpoint.

    Args:
        source: name of a release, or a checkpoint file.
        intervals: number of intervals of the splines that replace the radial networks.
        modality: level of theory to keep, for a model of several levels.

    Returns:
        The potential, float32, and its card, which names the source.

    Raises:
        FileNotFoundError: the source is neither a release nor a file.
        ValueError: ``sevenn`` is not installed, the file is not a checkpoint, the network has no
            equivalent here, or the modality is missing or unknown.
    """
    original = load_original(source)
    settings, modules = original.settings, original.modules
    check_settings(settings)
    level = level_of(settings, modality)
    order = sorted(original.elements)
    places = torch.tensor([original.elements[z] for z in order])
    rescale = modules["rescale_atomic_energy"]
    shift = by_element(rescale.shift, level, len(order))[places]
    scale = by_element(rescale.scale, level, len(order))[places]
    config = _config(original, intervals, biases=level is not None)
    card = ModelCard(
        config=config,
        elements=tuple(order),
        reference_energies=tuple(shift.tolist()),
        energy_scale=float(scale.mean()),
        mean_neighbors=float(modules["0_convolution"].denominator) ** 2,
        dtype="float64",
        training=_provenance(original, source, intervals, modality),
    )
    with torch.random.fork_rng(devices=[]):  # every number is overwritten
        potential = build_potential(card, "reference")
    with torch.no_grad():
        potential.scale.scale.copy_(scale)
        maps = linear_maps(modules["onehot_to_feature_x"].linear, len(order), level)
        potential.embedding.copy_((maps.by_degree[0] + maps.bias)[places].unsqueeze(1))
        sizes = [1.0] * (config.l_max + 1)
        for number, layer in enumerate(potential.layers):
            sizes = fill_layer(layer, original, number, sizes, level)
        hidden = linear_maps(modules["reduce_input_to_hidden"].linear, config.channels, level)
        last = linear_maps(modules["reduce_hidden_to_energy"].linear, None, level).by_degree[0]
        readout: Any = potential.readouts[0]
        readout.linear.weight.copy_((sizes[0] * hidden.by_degree[0] @ last).T)
        readout.linear.bias.copy_(hidden.bias @ last[:, 0])
    return potential.to(torch.float32), replace(card, dtype="float32")


def _config(original: Original, intervals: int, biases: bool) -> NequIPConfig:
    """Architecture, from the shapes of the modules."""
    settings, modules = original.settings, original.modules
    layers = int(settings["num_convolution_layer"])
    inner = modules["1_convolution" if layers > 1 else "0_convolution"].convolution.irreps_in1
    channels = [int(mul) for mul, _ in inner]
    for number in range(layers):
        given = [int(mul) for mul, _ in modules[f"{number}_convolution"].convolution.irreps_in1]
        if given != (channels if number else channels[:1]):
            raise ValueError(
                f"layer {number} of this checkpoint has channels {given} and layer 1 {channels}; "
                "tesseral converts networks whose layers are equal"
            )
    own = {type(modules[f"{n}_self_connection_intro"]).__name__ for n in range(layers)}
    if own != {"SelfConnectionLinearIntro"}:
        raise ValueError(
            f"this checkpoint has self-connections of the kind {', '.join(sorted(own))}; tesseral "
            "converts those of the kind SelfConnectionLinearIntro"
        )
    return NequIPConfig(
        cutoff=float(settings["cutoff"]),
        layers=layers,
        channels=channels[0],
        l_max=len(channels) - 1,
        channels_by_degree=channels,
        spline_intervals=intervals,
        kinks=kinks(settings),
        gates="silu",
        odd_paths=True,
        element_self_connection=False,
        biases=biases,
        linear_readout=True,
    )


def kinks(settings: Mapping[str, Any]) -> list[float]:
    """Distances (Å) at which the second derivative of SevenNet's cutoff function jumps."""
    if settings["cutoff_function"]["cutoff_function_name"] != "XPLOR":
        return []
    return [float(settings["cutoff_function"]["cutoff_on"]), float(settings["cutoff"])]


def _provenance(
    original: Original, source: str | Path, intervals: int, modality: str | None
) -> dict[str, Any]:
    """Origin of the weights, for the card."""
    found: dict[str, Any] = {
        "converted_from": str(source) if str(source) in SEVENNET_NAMES else original.path.name,
        "file": original.path.name,
        "file_sha256": hashlib.sha256(original.path.read_bytes()).hexdigest(),
        "sevenn": version("sevenn"),
        "licence": "MIT, copyright 2024 Yutack Park"
        if str(source) in SEVENNET_NAMES
        else "that of the checkpoint",
        "citation": CITATION,
        "radial_functions": f"cubic splines on {intervals} intervals",
    }
    if modality is not None:
        found |= {"modality": modality, "theory": modality}
    elif str(source) in THEORIES:
        found["theory"] = THEORIES[str(source)]
    return found
