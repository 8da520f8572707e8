"""The spline convolution as operators: forwards, its gradient, and the gradient of that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tesseral.potentials.ops.layout import degree_of, padded, padded_channels, threads_for
from tesseral.potentials.ops.library import Convolution, kernels
from tesseral.potentials.ops.register import CALLS
from tesseral.potentials.ops.wanted import wants

Tensors = tuple[Tensor, ...]


def _convolution(
    features: Tensor,
    harmonics: Tensor,
    radii: Tensor,
    coefficients: Tensor,
    senders: Tensor,
    receivers: Tensor,
    cutoff: float,
    l_out: int,
) -> tuple[Convolution, Tensors]:
    """The C struct, and the tensors it points to, which must outlive it."""
    channels = padded_channels(features.shape[2], features.dtype)
    keep = (
        padded(features, channels),
        harmonics.contiguous(),
        radii.contiguous(),
        padded(coefficients, channels),
        senders.contiguous(),
        receivers.contiguous(),
    )
    return Convolution(
        *(tensor.data_ptr() for tensor in keep),
        features.shape[0],
        senders.shape[0],
        degree_of(features.shape[1]),
        degree_of(harmonics.shape[1]),
        l_out,
        channels,
        coefficients.shape[0],
        threads_for(senders.shape[0] * coefficients[0].numel()),
        cutoff,
        features.shape[0],
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
        features,
        harmonics,
        radii,
        coefficients,
        senders,
        receivers,
        cutoff,
        degree_of(grad.shape[1]),
    )
    grad = padded(grad, inputs.channels)
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
        features,
        harmonics,
        radii,
        coefficients,
        senders,
        receivers,
        cutoff,
        degree_of(grad.shape[1]),
    )
    grad = padded(grad, inputs.channels)
    by_features = padded(by_features, inputs.channels)
    by_harmonics, by_radii = by_harmonics.contiguous(), by_radii.contiguous()
    if by_coefficients is not None:
        by_coefficients = padded(by_coefficients, inputs.channels)
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
    geometry = wants("geometry") and any(ctx.needs_input_grad[1:3])
    weights = wants("weights") and ctx.needs_input_grad[3]
    by_features, by_harmonics, by_radii, by_coefficients = CALLS["spline_convolution_backward"](
        grad, *ctx.saved_tensors, ctx.cutoff, geometry, weights
    )
    return (
        by_features,
        by_harmonics if geometry else None,
        by_radii if geometry else None,
        by_coefficients if weights else None,
        *[None] * 4,
    )


def _setup_convolve_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
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
    geometry = wants("geometry") and any(ctx.needs_input_grad[2:4])
    weights = wants("weights") and ctx.needs_input_grad[4]
    # A gradient by an output that was left out, of size 0, is nothing.
    given = [
        torch.zeros_like(like) if by is None or by.numel() == 0 else by
        for by, like in zip((by_features, by_harmonics, by_radii), (features, harmonics, radii))
    ]
    out = CALLS["spline_convolution_twice"](
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


_EDGES = "Tensor features, Tensor harmonics, Tensor radii, Tensor coefficients, Tensor senders, Tensor receivers, float cutoff"  # noqa: E501
OPERATORS: dict[str, tuple[Any, ...]] = {
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
}
