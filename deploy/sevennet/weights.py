"""Weights of a SevenNet network, copied from its modules into our NequIP layers.

e3nn's maps have additional factors (for paths and activations), which are multiplied into our
matrices or into the ``scale`` of the following map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tesseral.deploy.sevennet.original import Original
from tesseral.potentials.blocks.radial import fit_splines

PARTS = (
    *("self_connection_intro", "self_interaction_1", "convolution", "self_interaction_2"),
    "equivariant_gate",
)


class Maps(NamedTuple):
    """Linear map: matrices (C_in, C_out) of each degree, and the constant of the scalars."""

    by_degree: list[Tensor]
    bias: Tensor


def linear_maps(linear: Any, scalars: int | None, level: int | None) -> Maps:
    """Matrices of an e3nn linear map, with its path weights.

    Args:
        linear: ``e3nn.o3.Linear``.
        scalars: number of incoming scalars that are features. The others encode the level of theory
            (one-hot), which gives a constant. None: all are features.
        level: index of the level.
    """
    starts, totals = zip(
        *(_offsets(irreps) for irreps in (linear.irreps_in, linear.irreps_out)), strict=True
    )
    matrices = [
        torch.zeros(totals[0][degree], count, dtype=torch.float64)
        for degree, count in sorted(totals[1].items())
        if degree in totals[0]  # without a path the result is zero
    ]
    for _, path, weight in linear.weight_views(yield_instruction=True):
        degree, row = starts[0][path.i_in]
        _, column = starts[1][path.i_out]
        block = weight.detach() * path.path_weight
        matrices[degree][row : row + block.shape[0], column : column + block.shape[1]] += block
    bias = torch.zeros_like(matrices[0][0])
    if scalars is not None and matrices[0].shape[0] > scalars:
        assert level is not None
        bias = matrices[0][scalars + level]
        matrices[0] = matrices[0][:scalars]
    return Maps(matrices, bias)


def _offsets(irreps: Any) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """Degree of each block and its first channel within the degree; channels of each degree."""
    totals: dict[int, int] = {}
    starts = []
    for mul, irrep in irreps:
        starts.append((irrep.l, totals.get(irrep.l, 0)))
        totals[irrep.l] = totals.get(irrep.l, 0) + mul
    return starts, totals


def by_element(values: Tensor, level: int | None, n_elements: int) -> Tensor:
    """Values (n_elements,) float64 of a parameter that may have a row for each level."""
    values = values.detach().double()
    if values.dim() == 2:
        values = values[level or 0]
    return values.expand(n_elements)


def fill_layer(
    layer: Any, original: Original, number: int, sizes: list[float], level: int | None
) -> list[float]:
    """Copy the weights of one layer.

    Args:
        layer: our layer.
        original: SevenNet's layer.
        number: number of the layer.
        sizes: factors of the incoming features of each degree that SevenNet's have and ours do not.
        level: index of the level of theory.

    Returns:
        The same factors for the outgoing features.
    """
    part = {name: original.modules[f"{number}_{name}"] for name in PARTS}
    scalars = layer.enter.sizes[0]
    for ours, name in ((layer.keep, "self_connection_intro"), (layer.enter, "self_interaction_1")):
        maps = linear_maps(part[name].linear, scalars, level)
        _fill(ours, maps, sizes)
    paths = _paths(part["convolution"].convolution)
    _fill_radial(layer.convolution, original, part["convolution"].weight_nn, paths)
    # Their paths to one degree are in a different order.
    maps = linear_maps(part["self_interaction_2"].linear, layer.convolution.channels_out[0], level)
    for degree, matrix in enumerate(maps.by_degree):
        rows = [paths[path].rows for path in layer.convolution.paths if path[2] == degree]
        maps.by_degree[degree] = matrix[torch.cat(rows)]
    _fill(layer.leave, maps, [1 / float(part["convolution"].denominator)] * len(maps.by_degree))
    gate = part["equivariant_gate"].gate
    scalar = float(gate.act_scalars.acts[0].cst)
    gates = [float(act.cst) for act in gate.act_gates.acts]
    return [scalar, *gates]


def _fill(ours: Any, maps: Maps, sizes: list[float]) -> None:
    """Copy one linear map, with factors of the incoming features."""
    ours.scale.copy_(torch.tensor(sizes[: len(ours.scale)]).view(-1, 1, 1))
    for weight, matrix in zip(ours.weights, maps.by_degree, strict=True):
        weight.copy_(matrix.unsqueeze(0))
    if ours.bias is not None:
        ours.bias.copy_(maps.bias)


class _Path(NamedTuple):
    """Path of SevenNet's tensor product."""

    rows: Tensor  # its channels among those of its result's degree
    columns: Tensor  # its channels among the outputs of the radial network
    scale: float  # theirs divided by ours


def _paths(product: Any) -> dict[tuple[int, int, int], _Path]:
    """Paths (l1, l2, l3) of an e3nn tensor product with "uvu" instructions."""
    starts, _ = _offsets(product.irreps_out)
    found: dict[tuple[int, int, int], _Path] = {}
    column = 0
    for path in product.instructions:
        mul, first = product.irreps_in1[path.i_in1]
        degree, start = starts[path.i_out]
        channels = torch.arange(mul)
        # Our coupling tensors have the norm sqrt(2 l3 + 1), e3nn's have 1.
        scale = float(path.path_weight) / (2 * degree + 1) ** 0.5
        key = (first.l, product.irreps_in2[path.i_in2].ir.l, degree)
        assert path.connection_mode == "uvu" and key not in found
        found[key] = _Path(channels + start, channels + column, scale)
        column += mul
    return found


def _fill_radial(
    convolution: Any,
    original: Original,
    network: Any,
    paths: Mapping[tuple[int, int, int], _Path],
) -> None:
    """Fit splines to the outputs of a radial network.

    Their edges point from the receiver to the sender, ours the other way, so harmonics of odd
    degree change sign. If theirs are not normalised, those of degree l are larger by r^l.
    """
    embedding = original.modules["edge_embedding"]
    normalised = original.settings.get("_normalize_sph", True)
    order = [paths[path] for path in convolution.paths]
    columns = torch.cat([path.columns for path in order])
    degrees = torch.cat(
        [
            torch.full_like(path.columns, l2)
            for path, (_, l2, _) in zip(order, convolution.paths, strict=True)
        ]
    )
    scales = torch.cat([torch.full((len(path.columns),), path.scale) for path in order])
    factors = scales * (-1.0) ** degrees

    def radial(radii: Tensor) -> Tensor:
        basis = embedding.basis_function(radii) * embedding.cutoff_function(radii).unsqueeze(1)
        values: Tensor = network(basis)[:, columns] * factors
        return values if normalised else values * radii.unsqueeze(1) ** degrees

    intervals = convolution.pieces.shape[0]
    fitted = fit_splines(radial, convolution.basis, intervals, convolution.cutoff)
    parts = torch.split(fitted, convolution.channels, dim=1)
    for coefficients, part in zip(convolution.coefficients, parts, strict=True):
        coefficients.copy_(part)
