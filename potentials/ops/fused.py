"""The compiled kernels as PyTorch operators ``torch.ops.tesseral.*``, differentiable twice.

Four operators make a potential, and each gradient is again made of operators:

- ``edge_harmonics(vectors, l_max, dtype)``: directions' harmonics and lengths,
- ``spline_convolution(features, harmonics, radii, coefficients, senders, receivers, cutoff,
  l_out)``: the sum over neighbours,
- ``degree_linear(x, weight)``: a matrix over channels for each degree; its gradient by the weight
  is ``degree_outer``,
- ``sphere_product(a, b, l_out)``: the pointwise product of two functions on the sphere; the
  gradient is the same operator, since the integral of three harmonics is symmetric in them.

The formulas are those of ``reference``, the oracle in the tests.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tesseral.potentials.ops.library import Convolution, kernels

Shapes = tuple[Tensor, ...]
_wanted = threading.local()


@contextmanager
def gradients_of(kind: str) -> Iterator[None]:
    """Leave out gradients that nobody will read while a ``backward`` runs in this thread.

    PyTorch does not tell an operator written in Python which gradients are asked for. Forces need
    those by the geometry (and features) only; a training step those by the weights (and features)
    only; either is about half of the work.

    Args:
        kind: ``geometry`` (edge vectors) or ``weights``; the others become None.
    """
    before = getattr(_wanted, "kind", "all")
    _wanted.kind = kind
    try:
        yield
    finally:
        _wanted.kind = before


def _wants(kind: str) -> bool:
    return getattr(_wanted, "kind", "all") in (kind, "all")


def _threads(work: int) -> int:
    """Threads for so many multiplications: those of PyTorch, one where starting more costs more."""
    return torch.get_num_threads() if work > 200_000 else 1


def _padded(tensor: Tensor, channels: int) -> Tensor:
    """Contiguous, with zeros up to that many channels."""
    missing = channels - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor.contiguous()


def padded_channels(channels: int, dtype: torch.dtype) -> int:
    """The next multiple of the widest vector's length."""
    lanes = 64 // dtype.itemsize
    return (channels + lanes - 1) // lanes * lanes


def _degree(components: int) -> int:
    return math.isqrt(components) - 1


# --------------------------------------------------------------------------------- convolution


def _convolution(
    features: Tensor,
    harmonics: Tensor,
    radii: Tensor,
    coefficients: Tensor,
    senders: Tensor,
    receivers: Tensor,
    cutoff: float,
    l_out: int,
) -> tuple[Convolution, Shapes]:
    """The C struct, and the tensors it points to, which must outlive it."""
    channels = padded_channels(features.shape[2], features.dtype)
    keep = (
        _padded(features, channels),
        harmonics.contiguous(),
        radii.contiguous(),
        _padded(coefficients, channels),
        senders.contiguous(),
        receivers.contiguous(),
    )
    return Convolution(
        *(tensor.data_ptr() for tensor in keep),
        features.shape[0],
        senders.shape[0],
        _degree(features.shape[1]),
        _degree(harmonics.shape[1]),
        l_out,
        channels,
        coefficients.shape[0],
        _threads(senders.shape[0] * coefficients[0].numel()),
        cutoff,
    ), keep


def _convolve(features: Tensor, *rest: Any) -> Tensor:
    inputs, keep = _convolution(features, *rest)
    size = (inputs.l_out + 1) ** 2
    out = features.new_empty(features.shape[0], size, inputs.channels)
    kernels(features.dtype).convolve(inputs, out.data_ptr())
    return out[:, :, : features.shape[2]].contiguous()


def _convolve_backward(
    grad: Tensor,
    features: Tensor,
    harmonics: Tensor,
    radii: Tensor,
    coefficients: Tensor,
    senders: Tensor,
    receivers: Tensor,
    cutoff: float,
    geometry: bool,
    weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs, keep = _convolution(
        features, harmonics, radii, coefficients, senders, receivers, cutoff, _degree(grad.shape[1])
    )
    grad = _padded(grad, inputs.channels)
    by_features, by_coefficients = torch.empty_like(keep[0]), torch.empty_like(keep[3])
    by_harmonics, by_radii = torch.empty_like(keep[1]), torch.empty_like(keep[2])
    kernels(features.dtype).convolve_backward(
        inputs,
        grad.data_ptr(),
        by_features.data_ptr(),
        by_harmonics.data_ptr() if geometry else None,
        by_radii.data_ptr() if geometry else None,
        by_coefficients.data_ptr() if weights else None,
    )
    channels = features.shape[2]
    return (
        by_features[:, :, :channels].contiguous(),
        by_harmonics if geometry else harmonics.new_empty(0),
        by_radii if geometry else radii.new_empty(0),
        by_coefficients[:, :, :channels].contiguous() if weights else features.new_empty(0),
    )


def _convolve_twice(
    grad: Tensor,
    features: Tensor,
    harmonics: Tensor,
    radii: Tensor,
    coefficients: Tensor,
    senders: Tensor,
    receivers: Tensor,
    cutoff: float,
    by_features: Tensor,
    by_harmonics: Tensor,
    by_radii: Tensor,
    by_coefficients: Tensor | None,
    geometry: bool,
    weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs, keep = _convolution(
        features, harmonics, radii, coefficients, senders, receivers, cutoff, _degree(grad.shape[1])
    )
    grad = _padded(grad, inputs.channels)
    by_features = _padded(by_features, inputs.channels)
    by_harmonics, by_radii = by_harmonics.contiguous(), by_radii.contiguous()
    if by_coefficients is not None:
        by_coefficients = _padded(by_coefficients, inputs.channels)
    out = [torch.empty_like(tensor) for tensor in (grad, *keep[:4])]
    kernels(features.dtype).convolve_twice(
        inputs,
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
    channels = features.shape[2]
    return (
        out[0][:, :, :channels].contiguous(),
        out[1][:, :, :channels].contiguous(),
        out[2] if geometry else harmonics.new_empty(0),
        out[3] if geometry else radii.new_empty(0),
        out[4][:, :, :channels].contiguous() if weights else features.new_empty(0),
    )


def _setup_convolve(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.cutoff, _ = inputs
    ctx.save_for_backward(*tensors)


def _derive_convolve(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    geometry = _wants("geometry") and any(ctx.needs_input_grad[1:3])
    weights = _wants("weights") and ctx.needs_input_grad[3]
    by_features, by_harmonics, by_radii, by_coefficients = (
        torch.ops.tesseral.spline_convolution_backward(
            grad, *ctx.saved_tensors, ctx.cutoff, geometry, weights
        )
    )
    return (
        by_features,
        by_harmonics if geometry else None,
        by_radii if geometry else None,
        by_coefficients if weights else None,
        *[None] * 4,
    )


def _setup_convolve_backward(ctx: Any, inputs: tuple[Any, ...], output: Shapes) -> None:
    *tensors, ctx.cutoff, ctx.geometry, ctx.weights = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _derive_convolve_backward(
    ctx: Any,
    by_features: Tensor | None,
    by_harmonics: Tensor | None,
    by_radii: Tensor | None,
    by_coefficients: Tensor | None,
) -> tuple[Tensor | None, ...]:
    grad, features, harmonics, radii, *_ = ctx.saved_tensors
    geometry = _wants("geometry") and any(ctx.needs_input_grad[2:4])
    weights = _wants("weights") and ctx.needs_input_grad[4]
    # A gradient by an output that was left out, of size 0, is nothing.
    given = [
        torch.zeros_like(like) if by is None or by.numel() == 0 else by
        for by, like in zip((by_features, by_harmonics, by_radii), (features, harmonics, radii))
    ]
    out = torch.ops.tesseral.spline_convolution_twice(
        *ctx.saved_tensors,
        ctx.cutoff,
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
        *[None] * 5,
    )


# ------------------------------------------------------------------------------ edge harmonics


def _harmonics(vectors: Tensor, l_max: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    vectors = vectors.contiguous()
    edges = vectors.shape[0]
    out = vectors.new_empty(edges, (l_max + 1) ** 2, dtype=dtype), vectors.new_empty(edges)
    pointers = [tensor.data_ptr() for tensor in out]
    threads = _threads(edges * 50)
    kernels(dtype).harmonics(vectors.data_ptr(), edges, l_max, threads, *pointers)
    return out


def _harmonics_backward(by_harmonics: Tensor, by_radii: Tensor, vectors: Tensor) -> Tensor:
    inputs = [vectors.contiguous(), by_harmonics.contiguous(), by_radii.contiguous()]
    out = torch.empty_like(inputs[0])
    edges, l_max = vectors.shape[0], _degree(by_harmonics.shape[1])
    first, *rest = (tensor.data_ptr() for tensor in (*inputs, out))
    function = kernels(by_harmonics.dtype).harmonics_backward
    function(first, edges, l_max, _threads(edges * 100), *rest)
    return out


def _harmonics_twice(
    by_harmonics: Tensor, by_radii: Tensor, vectors: Tensor, by_vectors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (vectors, by_harmonics, by_radii, by_vectors)]
    out = [torch.empty_like(inputs[i]) for i in (1, 2, 0)]
    edges, l_max = vectors.shape[0], _degree(by_harmonics.shape[1])
    first, *rest = (tensor.data_ptr() for tensor in (*inputs, *out))
    function = kernels(by_harmonics.dtype).harmonics_twice
    function(first, edges, l_max, _threads(edges * 200), *rest)
    return out[0], out[1], out[2]


def _setup_harmonics(ctx: Any, inputs: tuple[Any, ...], output: Shapes) -> None:
    ctx.save_for_backward(inputs[0])


def _derive_harmonics(ctx: Any, by_harmonics: Tensor, by_radii: Tensor) -> tuple[Any, ...]:
    if not _wants("geometry"):
        return None, None, None
    (vectors,) = ctx.saved_tensors
    out = torch.ops.tesseral.edge_harmonics_backward(by_harmonics, by_radii, vectors)
    return out, None, None


def _setup_harmonics_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _derive_harmonics_backward(ctx: Any, by_vectors: Tensor) -> tuple[Tensor | None, ...]:
    out = torch.ops.tesseral.edge_harmonics_twice(*ctx.saved_tensors, by_vectors)
    return out[0], out[1], out[2] if _wants("geometry") else None


# --------------------------------------------------------------------------- maps of one atom


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    atoms, components, c_in = x.shape
    c_out = padded_channels(weight.shape[2], x.dtype)
    x, padded = x.contiguous(), _padded(weight, c_out)
    out = x.new_empty(atoms, components, c_out)
    threads = _threads(x.numel() * c_out)
    kernels(x.dtype).degree_linear(
        x.data_ptr(),
        padded.data_ptr(),
        atoms,
        _degree(components),
        c_in,
        c_out,
        threads,
        out.data_ptr(),
    )
    return out[:, :, : weight.shape[2]].contiguous()


def _outer(x: Tensor, g: Tensor) -> Tensor:
    atoms, components, c_in = x.shape
    c_out = padded_channels(g.shape[2], x.dtype)
    x, padded = x.contiguous(), _padded(g, c_out)
    l_max = _degree(components)
    out = x.new_empty(l_max + 1, c_in, c_out)
    threads = _threads(x.numel() * c_out)
    kernels(x.dtype).degree_outer(
        x.data_ptr(), padded.data_ptr(), atoms, l_max, c_in, c_out, threads, out.data_ptr()
    )
    return out[:, :, : g.shape[2]].contiguous()


def _product(a: Tensor, b: Tensor, l_out: int) -> Tensor:
    channels = padded_channels(a.shape[2], a.dtype)
    left, right = _padded(a, channels), _padded(b, channels)
    out = a.new_empty(a.shape[0], (l_out + 1) ** 2, channels)
    kernels(a.dtype).sphere_product(
        left.data_ptr(),
        right.data_ptr(),
        a.shape[0],
        _degree(a.shape[1]),
        _degree(b.shape[1]),
        l_out,
        channels,
        _threads(10 * left.numel()),
        out.data_ptr(),
    )
    return out[:, :, : a.shape[2]].contiguous()


def _setup_pair(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _derive_linear(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    by_x = by_weight = None
    if ctx.needs_input_grad[0]:
        by_x = torch.ops.tesseral.degree_linear(grad, weight.transpose(1, 2))
    if ctx.needs_input_grad[1] and _wants("weights"):
        by_weight = torch.ops.tesseral.degree_outer(x, grad)
    return by_x, by_weight


def _derive_outer(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    x, g = ctx.saved_tensors
    linear = torch.ops.tesseral.degree_linear
    return linear(g, grad.transpose(1, 2)), linear(x, grad)


def _derive_product(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    a, b = ctx.saved_tensors
    product = torch.ops.tesseral.sphere_product
    by_a = product(grad, b, _degree(a.shape[1])) if ctx.needs_input_grad[0] else None
    by_b = product(grad, a, _degree(b.shape[1])) if ctx.needs_input_grad[1] else None
    return by_a, by_b, None


# -------------------------------------------------------------------------------- registration

_EDGES = "Tensor features, Tensor harmonics, Tensor radii, Tensor coefficients, Tensor senders, Tensor receivers, float cutoff"  # noqa: E501
_OPERATORS: dict[str, tuple[Any, ...]] = {
    # name: schema, kernel, shapes, setup, derivative
    "spline_convolution": (
        f"({_EDGES}, int l_out) -> Tensor",
        _convolve,
        lambda x, y, r, w, s, t, cutoff, l_out: x.new_empty(
            x.shape[0], (l_out + 1) ** 2, x.shape[2]
        ),
        _setup_convolve,
        _derive_convolve,
    ),
    "spline_convolution_backward": (
        f"(Tensor grad, {_EDGES}, bool geometry, bool weights) -> (Tensor, Tensor, Tensor, Tensor)",
        _convolve_backward,
        lambda g, x, y, r, w, s, t, cutoff, geometry, weights: (
            torch.empty_like(x),
            torch.empty_like(y) if geometry else y.new_empty(0),
            torch.empty_like(r) if geometry else r.new_empty(0),
            torch.empty_like(w) if weights else x.new_empty(0),
        ),
        _setup_convolve_backward,
        _derive_convolve_backward,
    ),
    "spline_convolution_twice": (
        f"(Tensor grad, {_EDGES}, Tensor by_features, Tensor by_harmonics, Tensor by_radii, "
        "Tensor? by_coefficients, bool geometry, bool weights) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _convolve_twice,
        lambda g, x, y, r, w, s, t, cutoff, bx, by, br, bw, geometry, weights: (
            torch.empty_like(g),
            torch.empty_like(x),
            torch.empty_like(y) if geometry else y.new_empty(0),
            torch.empty_like(r) if geometry else r.new_empty(0),
            torch.empty_like(w) if weights else x.new_empty(0),
        ),
        None,
        None,
    ),
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
        _linear,
        lambda x, weight: x.new_empty(x.shape[0], x.shape[1], weight.shape[2]),
        _setup_pair,
        _derive_linear,
    ),
    "degree_outer": (
        "(Tensor x, Tensor g) -> Tensor",
        _outer,
        lambda x, g: x.new_empty(_degree(x.shape[1]) + 1, x.shape[2], g.shape[2]),
        _setup_pair,
        _derive_outer,
    ),
    "sphere_product": (
        "(Tensor a, Tensor b, int l_out) -> Tensor",
        _product,
        lambda a, b, l_out: a.new_empty(a.shape[0], (l_out + 1) ** 2, a.shape[2]),
        _setup_pair,
        _derive_product,
    ),
}

_LIBRARY: Any = torch.library.Library("tesseral", "DEF")  # type: ignore[no-untyped-call]
for _name, (_schema, _kernel, _shapes, _setup, _derivative) in _OPERATORS.items():
    _LIBRARY.define(_name + _schema)
    _LIBRARY.impl(_name, _kernel, "CPU")
    torch.library.register_fake(f"tesseral::{_name}", _shapes, lib=_LIBRARY)
    if _derivative is not None:
        torch.library.register_autograd(
            f"tesseral::{_name}", _derivative, setup_context=_setup, lib=_LIBRARY
        )
