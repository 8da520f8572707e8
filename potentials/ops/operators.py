"""Compiled kernels as PyTorch operators ``torch.ops.tesseral.*``, twice differentiable.

A potential consists of four operators, and each gradient consists of operators again:

- ``edge_harmonics(vectors, l_max, dtype)``: harmonics of the directions, and lengths,
- ``spline_convolution(features, harmonics, radii, coefficients, senders, receivers, cutoff,
  l_out, n_out)``: the sum over neighbours of the first n_out atoms,
- ``degree_linear(x, weight)``: a matrix over channels for each degree; its gradient by the weight
  is ``degree_outer``,
- ``sphere_product(a, b, l_out)``: the pointwise product of two functions on the sphere; the
  gradient is the same operator, since the integral of three harmonics is symmetric in them.

The convolutions are in ``convolution_operators``. The formulas are those of the modules in plain
PyTorch (``potentials/blocks``), with which the tests compare the kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tesseral.potentials.blocks.sphere import degree_of
from tesseral.potentials.ops import convolution_operators
from tesseral.potentials.ops.compiled import kernels, threads_for
from tesseral.potentials.ops.padding import padded, padded_channels
from tesseral.potentials.ops.register import CALLS, register
from tesseral.potentials.ops.wanted_gradients import wants

# ------------------------------------------------------------------------------ edge harmonics


def _harmonics(vectors: Tensor, l_max: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    vectors = vectors.contiguous()
    edges = vectors.shape[0]
    out = vectors.new_empty(edges, (l_max + 1) ** 2, dtype=dtype), vectors.new_empty(edges)
    pointers = [tensor.data_ptr() for tensor in out]
    threads = threads_for(edges * 50)
    kernels(dtype).harmonics(vectors.data_ptr(), edges, l_max, threads, *pointers)
    return out


def _harmonics_backward(by_harmonics: Tensor, by_radii: Tensor, vectors: Tensor) -> Tensor:
    inputs = [vectors.contiguous(), by_harmonics.contiguous(), by_radii.contiguous()]
    out = torch.empty_like(inputs[0])
    edges, l_max = vectors.shape[0], degree_of(by_harmonics.shape[1])
    first, *rest = (tensor.data_ptr() for tensor in (*inputs, out))
    function = kernels(by_harmonics.dtype).harmonics_backward
    function(first, edges, l_max, threads_for(edges * 100), *rest)
    return out


def _harmonics_twice(
    by_harmonics: Tensor, by_radii: Tensor, vectors: Tensor, by_vectors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (vectors, by_harmonics, by_radii, by_vectors)]
    out = [torch.empty_like(inputs[i]) for i in (1, 2, 0)]
    edges, l_max = vectors.shape[0], degree_of(by_harmonics.shape[1])
    first, *rest = (tensor.data_ptr() for tensor in (*inputs, *out))
    function = kernels(by_harmonics.dtype).harmonics_twice
    function(first, edges, l_max, threads_for(edges * 200), *rest)
    return out[0], out[1], out[2]


def _setup_harmonics(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0])


def _derive_harmonics(ctx: Any, by_harmonics: Tensor, by_radii: Tensor) -> tuple[Any, ...]:
    if not wants("geometry"):
        return None, None, None
    (vectors,) = ctx.saved_tensors
    out = CALLS["edge_harmonics_backward"](by_harmonics, by_radii, vectors)
    return out, None, None


def _setup_harmonics_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _derive_harmonics_backward(ctx: Any, by_vectors: Tensor) -> tuple[Tensor | None, ...]:
    out = CALLS["edge_harmonics_twice"](*ctx.saved_tensors, by_vectors)
    return out[0], out[1], out[2] if wants("geometry") else None


# --------------------------------------------------------------------------- maps of one atom


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``degree_linear``: (N, M, C) by (l_max + 1, C, D) to (N, M, D), of plain tensors."""
    atoms, components, c_in = x.shape
    c_out = padded_channels(weight.shape[2], x.dtype)
    x, matrix = x.contiguous(), padded(weight, c_out)
    out = x.new_empty(atoms, components, c_out)
    threads = threads_for(x.numel() * c_out)
    kernels(x.dtype).degree_linear(
        x.data_ptr(),
        matrix.data_ptr(),
        atoms,
        degree_of(components),
        c_in,
        c_out,
        threads,
        out.data_ptr(),
    )
    return out[:, :, : weight.shape[2]].contiguous()


def outer(x: Tensor, g: Tensor) -> Tensor:
    """``degree_outer``: (N, M, C) and (N, M, D) to (l_max + 1, C, D), of plain tensors."""
    atoms, components, c_in = x.shape
    c_out = padded_channels(g.shape[2], x.dtype)
    x, right = x.contiguous(), padded(g, c_out)
    l_max = degree_of(components)
    out = x.new_empty(l_max + 1, c_in, c_out)
    threads = threads_for(x.numel() * c_out)
    kernels(x.dtype).degree_outer(
        x.data_ptr(), right.data_ptr(), atoms, l_max, c_in, c_out, threads, out.data_ptr()
    )
    return out[:, :, : g.shape[2]].contiguous()


def product(a: Tensor, b: Tensor, l_out: int) -> Tensor:
    """``sphere_product``: (N, M, C) and (N, M', C) to (N, (l_out + 1)², C), of plain tensors."""
    channels = padded_channels(a.shape[2], a.dtype)
    left, right = padded(a, channels), padded(b, channels)
    out = a.new_empty(a.shape[0], (l_out + 1) ** 2, channels)
    kernels(a.dtype).sphere_product(
        left.data_ptr(),
        right.data_ptr(),
        a.shape[0],
        degree_of(a.shape[1]),
        degree_of(b.shape[1]),
        l_out,
        channels,
        threads_for(10 * left.numel()),
        out.data_ptr(),
    )
    return out[:, :, : a.shape[2]].contiguous()


def _setup_pair(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _derive_linear(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    by_x = by_weight = None
    if ctx.needs_input_grad[0]:
        by_x = CALLS["degree_linear"](grad, weight.transpose(1, 2))
    if ctx.needs_input_grad[1] and wants("weights"):
        by_weight = CALLS["degree_outer"](x, grad)
    return by_x, by_weight


def _derive_outer(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    x, g = ctx.saved_tensors
    linear = CALLS["degree_linear"]
    return linear(g, grad.transpose(1, 2)), linear(x, grad)


def _derive_product(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    a, b = ctx.saved_tensors
    product = CALLS["sphere_product"]
    by_a = product(grad, b, degree_of(a.shape[1])) if ctx.needs_input_grad[0] else None
    by_b = product(grad, a, degree_of(b.shape[1])) if ctx.needs_input_grad[1] else None
    return by_a, by_b, None


# -------------------------------------------------------------------------------- registration

_OPERATORS: dict[str, tuple[Any, ...]] = {
    # name: schema, kernel, shapes, setup, derivative
    **convolution_operators.OPERATORS,
    "edge_harmonics": (
        "(Tensor vectors, int l_max, ScalarType dtype) -> (Tensor, Tensor)",
        _harmonics,
        lambda v, l_max, dtype: (
            v.new_empty(v.shape[0], (l_max + 1) ** 2, dtype=dtype),
            v.new_empty(v.shape[0]),
        ),
        _setup_harmonics,
        _derive_harmonics,
    ),
    "edge_harmonics_backward": (
        "(Tensor by_harmonics, Tensor by_radii, Tensor vectors) -> Tensor",
        _harmonics_backward,
        lambda by_harmonics, by_radii, v: torch.empty_like(v),
        _setup_harmonics_backward,
        _derive_harmonics_backward,
    ),
    "edge_harmonics_twice": (
        "(Tensor by_harmonics, Tensor by_radii, Tensor vectors, Tensor by_vectors) "
        "-> (Tensor, Tensor, Tensor)",
        _harmonics_twice,
        lambda by_harmonics, by_radii, v, by_v: (
            torch.empty_like(by_harmonics),
            torch.empty_like(by_radii),
            torch.empty_like(v),
        ),
        None,
        None,
    ),
    "degree_linear": (
        "(Tensor x, Tensor weight) -> Tensor",
        linear,
        lambda x, weight: x.new_empty(x.shape[0], x.shape[1], weight.shape[2]),
        _setup_pair,
        _derive_linear,
    ),
    "degree_outer": (
        "(Tensor x, Tensor g) -> Tensor",
        outer,
        lambda x, g: x.new_empty(degree_of(x.shape[1]) + 1, x.shape[2], g.shape[2]),
        _setup_pair,
        _derive_outer,
    ),
    "sphere_product": (
        "(Tensor a, Tensor b, int l_out) -> Tensor",
        product,
        lambda a, b, l_out: a.new_empty(a.shape[0], (l_out + 1) ** 2, a.shape[2]),
        _setup_pair,
        _derive_product,
    ),
}

CALLS.update({name: register(name, *entry) for name, entry in _OPERATORS.items()})
