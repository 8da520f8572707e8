"""Conversion of Nequix weights: weights copied, radial networks replaced by splines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tesseral.deploy.card import ModelCard
from tesseral.deploy.modelfile import build_potential
from tesseral.deploy.nequix.original import file_hash, stored_predictions, weights_path
from tesseral.deploy.nequix.weights import Layer, Weights, couplings, read_weights
from tesseral.deploy.releases import NEQUIX_NAMES, THEORIES
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.blocks.radial import fit_splines
from tesseral.potentials.message_passing import MessagePassing

# Nequix divides a SiLU by its root mean square over normally distributed numbers, which e3nn-jax
# computes as a sum in float32.
SILU_SIZE = 0.5964577198028564
NEQUIX = "Koker, Kotak and Smidt, arXiv 2508.16067"
TUNED = "Koker, Gangan, Kotak, Marian and Smidt, arXiv 2601.07742"


def convert(
    source: str | Path, *, intervals: int, modality: str | None = None
) -> tuple[MessagePassing, ModelCard]:
    """Model with the same results as a Nequix network.

    Args:
        source: name of a release in the cache of the package ``nequix``, or a file.
        intervals: number of intervals of the splines that replace the radial networks.
        modality: these networks have one level of theory only; must be None.

    Returns:
        The potential, float32, and its card, which names the source.

    Raises:
        FileNotFoundError: the source is neither a release in the cache nor a file.
        ValueError: the file is not one of Nequix weights, the network has no equivalent here, or a
            modality was given.
    """
    if modality is not None:
        raise ValueError(
            f"`modality` is {modality}, but networks of Nequix have one level of theory only"
        )
    path = weights_path(source)
    weights = read_weights(path)
    settings = weights.settings
    card = ModelCard(
        config=_config(weights, intervals),
        elements=tuple(weights.elements),
        reference_energies=tuple((weights.energies + settings["shift"]).tolist()),
        energy_scale=float(settings["scale"]),
        mean_neighbors=float(settings["avg_n_neighbors"]),
        dtype="float64",
        training=_provenance(path, source, intervals),
    )
    with torch.random.fork_rng(devices=[]):  # every number is overwritten
        potential = build_potential(card, "reference")
    with torch.no_grad():
        potential.embedding.copy_(torch.eye(len(weights.elements)).unsqueeze(1))
        size = 1.0
        for layer, theirs in zip(potential.layers, weights.layers, strict=True):
            _fill_layer(layer, theirs, settings, size)
            size = 1 / SILU_SIZE
        readout: Any = potential.readouts[0]
        readout.linear.weight.copy_(_normalised(weights.readout).T * size)
        readout.linear.bias.zero_()
    return potential.to(torch.float32), replace(card, dtype="float32")


def _config(weights: Weights, intervals: int) -> NequIPConfig:
    """Architecture of the network."""
    settings = weights.settings
    return NequIPConfig(
        cutoff=float(settings["cutoff"]),
        layers=len(weights.layers),
        channels=weights.channels[0],
        l_max=len(weights.channels) - 1,
        channels_by_degree=weights.channels,
        spline_intervals=intervals,
        gates="silu",
        element_self_connection=bool(settings["index_weights"]),
        embedding_channels=len(weights.elements),
        field_norm=bool(settings["layer_norm"]),
        linear_readout=True,
    )


def _normalised(matrix: Tensor) -> Tensor:
    """Matrix (…, C_in, C_out) that Nequix divides by the root of C_in."""
    scaled: Tensor = matrix * matrix.shape[-2] ** -0.5
    return scaled


def _fill_layer(layer: Any, theirs: Layer, settings: dict[str, Any], size: float) -> None:
    """Copy the weights of one layer.

    Args:
        layer: our layer.
        theirs: weights of Nequix.
        settings: settings of the network.
        size: factor of the incoming features that Nequix's have and ours do not.
    """
    for ours, matrices in ((layer.enter, theirs.enter), (layer.keep, theirs.keep)):
        ours.scale.fill_(size)
        for weight, matrix in zip(ours.weights, matrices, strict=True):
            weight.copy_(_normalised(matrix))
    convolution = layer.convolution
    degrees = len(convolution.channels_in), settings["lmax"] + 1, len(layer.channels)
    rows: dict[tuple[int, int, int], Tensor] = {}  # channels of each path in its degree
    columns: dict[tuple[int, int, int], Tensor] = {}  # and in the output of the radial network
    starts, column = [0] * degrees[2], 0
    for path in couplings(*degrees):
        channels = torch.arange(convolution.channels_in[path[0]])
        rows[path], columns[path] = channels + starts[path[2]], channels + column
        starts[path[2]] += len(channels)
        column += len(channels)
    layer.leave.scale.fill_(settings["avg_n_neighbors"] ** -0.5)
    for degree, (weight, matrix) in enumerate(zip(layer.leave.weights, theirs.leave, strict=True)):
        order = torch.cat([rows[path] for path in convolution.paths if path[2] == degree])
        weight.copy_(_normalised(matrix)[order])
    if layer.norm is not None:
        for weight, factors in zip(layer.norm.weights, theirs.norm, strict=True):
            weight.copy_(factors)
    _fill_radial(convolution, theirs.radial, settings, columns)


def _fill_radial(
    convolution: Any,
    network: list[Tensor],
    settings: dict[str, Any],
    columns: dict[tuple[int, int, int], Tensor],
) -> None:
    """Fit splines to the outputs of a radial network.

    Its edges point from the receiver to the sender, ours the other way, so harmonics of odd degree
    change sign.
    """
    order = torch.cat([columns[path] for path in convolution.paths])
    signs = torch.cat(
        [torch.full((len(columns[path]),), (-1.0) ** path[1]) for path in convolution.paths]
    )

    def radial(radii: Tensor) -> Tensor:
        basis = bessel_basis(radii, settings["radial_basis_size"], convolution.cutoff)
        left = polynomial_cutoff(radii / convolution.cutoff, settings["radial_polynomial_p"])
        values = basis * left.unsqueeze(1)
        for matrix in network[:-1]:
            values = torch.nn.functional.silu(values @ matrix)
        outputs: Tensor = (values @ network[-1])[:, order] * signs
        return outputs

    intervals = convolution.pieces.shape[0]
    fitted = fit_splines(radial, convolution.basis, intervals, convolution.cutoff)
    parts = torch.split(fitted, convolution.channels, dim=1)
    for coefficients, part in zip(convolution.coefficients, parts, strict=True):
        coefficients.copy_(part)


def bessel_basis(radii: Tensor, functions: int, cutoff: float) -> Tensor:
    """``2/r_cut sin(n π r/r_cut)/r``, n = 1, 2, …: distances (E,) Å to (E, functions)."""
    order = torch.arange(1, functions + 1, dtype=radii.dtype)
    # torch.sinc(x) is sin(πx)/(πx).
    waves = torch.sinc(radii.unsqueeze(1) * order / cutoff)
    return 2 / cutoff * (torch.pi / cutoff) * order * waves


def polynomial_cutoff(reduced: Tensor, power: float) -> Tensor:
    """Cutoff function of DimeNet (arXiv 2003.03123, eq. 8) of r/r_cut (E,), C² at the cutoff."""
    p = power
    value = 1 - (p + 1) * (p + 2) / 2 * reduced**p
    value = value + p * (p + 2) * reduced ** (p + 1) - p * (p + 1) / 2 * reduced ** (p + 2)
    return torch.where(reduced < 1, value, torch.zeros_like(value))


def _provenance(path: Path, source: str | Path, intervals: int) -> dict[str, Any]:
    """Origin of the weights, for the card."""
    digest = file_hash(path)
    published = stored_predictions()["files"].get(digest, {}).get("name")
    name = str(source) if str(source) in NEQUIX_NAMES else published
    citation = NEQUIX if name is None else f"{NEQUIX}; {TUNED}"
    return {
        "converted_from": name or path.name,
        **({"theory": THEORIES[name]} if name else {}),
        "file": path.name,
        "file_sha256": digest,
        "licence": "that of the file"
        if name is None
        else "CC-BY-4.0, by the authors of Nequix (Teddy Koker, Mit Kotak, Tess Smidt and others)",
        "citation": citation,
        "radial_functions": f"cubic splines on {intervals} intervals",
    }
