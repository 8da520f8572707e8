"""Spline convolutions as operators: forward, gradient, and gradient of the gradient.

``spline_convolution`` sums its paths (``SplineConvolution``), ``path_convolution`` keeps them
separate (``PathConvolution``). They differ only in what is defined by ``Kind``: the inputs beyond
the common ones, the shape of the result, and the rows that the kernels read and write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tesseral.potentials.blocks.convolution import convolution_paths
from tesseral.potentials.blocks.sphere import degree_of
from tesseral.potentials.ops.compiled import Convolution, kernels, threads_for
from tesseral.potentials.ops.padding import Columns, columns
from tesseral.potentials.ops.register import CALLS
from tesseral.potentials.ops.tables import is_compiled
from tesseral.potentials.ops.wanted_gradients import wants

# ------------------------------------------------------------------------- kinds and layouts

Tensors = tuple[Tensor, ...]


class Layout(NamedTuple):
    """Degrees and channels of a convolution, and the memory layout for the kernels."""

    l_in: int
    l_out: int
    channels: int  # number of channels if paths are summed
    paths: Tensor | None  # (P, 3) int32, if paths are separate
    channels_in: Tensor | None  # (l_in + 1,) int32 of the features, likewise, padded
    features: Columns
    coefficients: Columns
    results: Columns


class Kind(NamedTuple):
    """Properties that distinguish the two convolutions."""

    name: str
    tensors: str  # schema of the tensors after `receivers`
    n_tensors: int  # total number of tensors
    options: str  # schema of the options after `cutoff`
    shape: Callable[..., tuple[int, ...]]  # shape of the result from features and options
    layout: Callable[..., Layout]  # layout from features, harmonics and options

    def split(self, inputs: tuple[Any, ...]) -> tuple[Tensors, float, tuple[Any, ...]]:
        """Tensors, cutoff and options of an operator's inputs."""
        return inputs[: self.n_tensors], inputs[self.n_tensors], inputs[self.n_tensors + 1 :]


@lru_cache
def _summed(l_in: int, l_edge: int, l_out: int, channels: int, dtype: torch.dtype) -> Layout:
    n_paths = len(convolution_paths(l_in, l_edge, l_out))
    numbers = [((degree + 1) ** 2, [channels]) for degree in (l_in, l_out)]
    table = columns([(1, [channels] * n_paths)], dtype)
    features, results = (columns([number], dtype) for number in numbers)
    return Layout(l_in, l_out, table.width // n_paths, None, None, features, table, results)


@lru_cache
def _apart(paths: tuple[int, ...], channels: tuple[int, ...], dtype: torch.dtype) -> Layout:
    triples = [paths[i : i + 3] for i in range(0, len(paths), 3)]
    assert all(is_compiled(each) for each in triples)
    l_out = max(l3 for _, _, l3 in triples)
    beside = [[channels[l1] for l1, _, l3 in triples if l3 == l] for l in range(l_out + 1)]  # noqa: E741
    features = [(2 * degree + 1, [number]) for degree, number in enumerate(channels)]
    results = [(2 * degree + 1, numbers) for degree, numbers in enumerate(beside)]
    padded = [columns([(1, [number])], dtype).width for number in channels]
    return Layout(
        len(channels) - 1,
        l_out,
        0,
        torch.tensor(triples, dtype=torch.int32, device="cpu"),
        torch.tensor(padded, dtype=torch.int32, device="cpu"),
        columns(features, dtype),
        columns([(1, [channels[l1] for l1, _, _ in triples])], dtype),
        columns(results, dtype),
    )


def _apart_width(paths: list[int], channels: list[int]) -> int:
    triples = zip(paths[::3], paths[2::3], strict=True)
    return sum((2 * l3 + 1) * channels[l1] for l1, l3 in triples)


SUMMED = Kind(
    "spline_convolution",
    "",
    6,
    "int l_out, SymInt n_out",
    lambda x, l_out, n_out: (n_out, (l_out + 1) ** 2, x.shape[2]),
    lambda x, y, l_out, n_out: _summed(
        degree_of(x.shape[1]), degree_of(y.shape[1]), l_out, x.shape[2], x.dtype
    ),
)
APART = Kind(
    "path_convolution",
    ", Tensor pieces, Tensor first",
    8,
    "int[] paths, int[] channels, SymInt n_out",
    lambda x, paths, channels, n_out: (n_out, _apart_width(paths, channels)),
    lambda x, y, paths, channels, n_out: _apart(tuple(paths), tuple(channels), x.dtype),
)


# ------------------------------------------------------------------------------------ kernels


class Call(NamedTuple):
    """One call of the kernels: the C struct, and the arrays it points to, which must outlive it."""

    inputs: Convolution
    arrays: Tensors
    layout: Layout


def _call(kind: Kind, tensors: Tensors, cutoff: float, options: tuple[Any, ...]) -> Call:
    features, harmonics, radii, coefficients, *rest = tensors
    layout = kind.layout(features, harmonics, *options)
    arrays = (
        layout.features.pad(features),
        harmonics.contiguous(),
        radii.contiguous(),
        layout.coefficients.pad(coefficients),
        *(tensor.contiguous() for tensor in rest),
    )
    pointers = [tensor.data_ptr() for tensor in arrays]
    edges = harmonics.shape[0]
    inputs = Convolution(
        *pointers[:6],
        features.shape[0],
        edges,
        layout.l_in,
        degree_of(harmonics.shape[1]),
        layout.l_out,
        layout.channels,
        coefficients.shape[0],
        threads_for(edges * layout.coefficients.width),
        cutoff,
        kind.shape(features, *options)[0],
    )
    if layout.paths is not None and layout.channels_in is not None:
        inputs.paths, inputs.channels_in = layout.paths.data_ptr(), layout.channels_in.data_ptr()
        inputs.n_paths, inputs.splines = len(layout.paths), coefficients.shape[0]
        inputs.intervals = arrays[6].shape[0]
        inputs.pieces, inputs.first = pointers[6:]
    return Call(inputs, arrays, layout)


def convolve(kind: Kind, *inputs: Any) -> Tensor:
    """The convolution of a kind, of plain tensors; inputs as in the schema of its operator."""
    tensors, cutoff, options = kind.split(inputs)
    call = _call(kind, tensors, cutoff, options)
    out = tensors[0].new_empty(call.inputs.owned, call.layout.results.width)
    kernels(out.dtype).convolve(call.inputs, out.data_ptr())
    return call.layout.results.cut(out).view(kind.shape(tensors[0], *options))


def convolve_backward(
    kind: Kind, grad: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Its gradients by features, harmonics, radii and coefficients; those not wanted are empty."""
    *rest, geometry, weights = inputs
    tensors, cutoff, options = kind.split(tuple(rest))
    call = _call(kind, tensors, cutoff, options)
    layout, grad = call.layout, call.layout.results.pad(grad)
    by_features, by_harmonics, by_radii, by_coefficients = map(torch.empty_like, call.arrays[:4])
    kernels(grad.dtype).convolve_backward(
        call.inputs,
        grad.data_ptr(),
        by_features.data_ptr(),
        by_harmonics.data_ptr() if geometry else None,
        by_radii.data_ptr() if geometry else None,
        by_coefficients.data_ptr() if weights else None,
    )
    return (
        layout.features.cut(by_features).view(tensors[0].shape),
        by_harmonics if geometry else by_harmonics.new_empty(0),
        by_radii if geometry else by_radii.new_empty(0),
        layout.coefficients.cut(by_coefficients).view(tensors[3].shape)
        if weights
        else by_coefficients.new_empty(0),
    )


def convolve_twice(
    kind: Kind, grad: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradient of ``convolve_backward`` by ``grad`` and by the inputs of ``convolve``."""
    *rest, by_features, by_harmonics, by_radii, by_coefficients, geometry, weights = inputs
    tensors, cutoff, options = kind.split(tuple(rest))
    call = _call(kind, tensors, cutoff, options)
    layout, shape = call.layout, grad.shape
    grad, by_features = layout.results.pad(grad), layout.features.pad(by_features)
    by_harmonics, by_radii = by_harmonics.contiguous(), by_radii.contiguous()
    if by_coefficients is not None:
        by_coefficients = layout.coefficients.pad(by_coefficients)
    out = [torch.empty_like(tensor) for tensor in (grad, *call.arrays[:4])]
    kernels(grad.dtype).convolve_twice(
        call.inputs,
        grad.data_ptr(),
        by_features.data_ptr(),
        by_harmonics.data_ptr(),
        by_radii.data_ptr(),
        None if by_coefficients is None else by_coefficients.data_ptr(),
        out[0].data_ptr(),
        out[1].data_ptr(),
        out[2].data_ptr() if geometry else None,
        out[3].data_ptr() if geometry else None,
        out[4].data_ptr() if weights else None,
    )
    return (
        layout.results.cut(out[0]).view(shape),
        layout.features.cut(out[1]).view(tensors[0].shape),
        out[2] if geometry else out[2].new_empty(0),
        out[3] if geometry else out[3].new_empty(0),
        layout.coefficients.cut(out[4]).view(tensors[3].shape) if weights else grad.new_empty(0),
    )


# -------------------------------------------------------------------------------- derivatives


def _setup_convolve(kind: Kind, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tensors, *ctx.rest = inputs[: kind.n_tensors], *inputs[kind.n_tensors :]
    ctx.save_for_backward(*tensors)


def _derive_convolve(kind: Kind, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    geometry = wants("geometry") and any(ctx.needs_input_grad[1:3])
    weights = wants("weights") and ctx.needs_input_grad[3]
    by_features, by_harmonics, by_radii, by_coefficients = CALLS[f"{kind.name}_backward"](
        grad, *ctx.saved_tensors, *ctx.rest, geometry, weights
    )
    return (
        by_features,
        by_harmonics if geometry else None,
        by_radii if geometry else None,
        by_coefficients if weights else None,
        *[None] * (len(ctx.needs_input_grad) - 4),
    )


def _setup_convolve_backward(
    kind: Kind, ctx: Any, inputs: tuple[Any, ...], output: Tensors
) -> None:
    *ctx.rest, _, ctx.weights = inputs[1 + kind.n_tensors :]
    ctx.save_for_backward(*inputs[: 1 + kind.n_tensors])
    ctx.set_materialize_grads(False)


def _derive_convolve_backward(
    kind: Kind,
    ctx: Any,
    by_features: Tensor | None,
    by_harmonics: Tensor | None,
    by_radii: Tensor | None,
    by_coefficients: Tensor | None,
) -> tuple[Tensor | None, ...]:
    _, features, harmonics, radii, *_ = ctx.saved_tensors
    geometry = wants("geometry") and any(ctx.needs_input_grad[2:4])
    weights = wants("weights") and ctx.needs_input_grad[4]
    # The gradient by an omitted output has size 0 and contributes nothing.
    given = [
        torch.zeros_like(like) if by is None or by.numel() == 0 else by
        for by, like in zip((by_features, by_harmonics, by_radii), (features, harmonics, radii))
    ]
    out = CALLS[f"{kind.name}_twice"](
        *ctx.saved_tensors,
        *ctx.rest,
        *given,
        by_coefficients if ctx.weights else None,
        geometry,
        weights,
    )
    return (
        out[0],
        out[1],
        out[2] if geometry else None,
        out[3] if geometry else None,
        out[4] if weights else None,
        *[None] * (len(ctx.needs_input_grad) - 5),
    )


# ------------------------------------------------------------------------------------ schemas


def _operators(kind: Kind) -> dict[str, tuple[Any, ...]]:
    """Schema, kernel, shapes, setup and derivative of the three operators, by name."""
    inputs = (
        "Tensor features, Tensor harmonics, Tensor radii, Tensor coefficients, Tensor senders, "
        f"Tensor receivers{kind.tensors}, float cutoff, {kind.options}"
    )

    def shapes_forwards(*inputs: Any) -> Tensor:
        tensors, _, options = kind.split(inputs)
        return tensors[0].new_empty(kind.shape(tensors[0], *options))

    def shapes_backwards(grad: Tensor, *inputs: Any) -> Tensors:
        *_, geometry, weights = inputs
        kept = (True, geometry, geometry, weights)
        return tuple(
            torch.empty_like(like) if keep else like.new_empty(0)
            for like, keep in zip(inputs, kept)
        )

    def shapes_twice(grad: Tensor, *inputs: Any) -> Tensors:
        return torch.empty_like(grad), *shapes_backwards(grad, *inputs)

    return {
        kind.name: (
            f"({inputs}) -> Tensor",
            partial(convolve, kind),
            shapes_forwards,
            partial(_setup_convolve, kind),
            partial(_derive_convolve, kind),
        ),
        f"{kind.name}_backward": (
            f"(Tensor grad, {inputs}, bool geometry, bool weights) "
            "-> (Tensor, Tensor, Tensor, Tensor)",
            partial(convolve_backward, kind),
            shapes_backwards,
            partial(_setup_convolve_backward, kind),
            partial(_derive_convolve_backward, kind),
        ),
        f"{kind.name}_twice": (
            f"(Tensor grad, {inputs}, Tensor by_features, Tensor by_harmonics, Tensor by_radii, "
            "Tensor? by_coefficients, bool geometry, bool weights) "
            "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
            partial(convolve_twice, kind),
            shapes_twice,
            None,
            None,
        ),
    }


OPERATORS = {**_operators(SUMMED), **_operators(APART)}
