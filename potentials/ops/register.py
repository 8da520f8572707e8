"""PyTorch operators from functions on plain tensors, with little overhead.

``torch.library.register_autograd`` costs about 20 µs per call, as long as a kernel takes for the
atoms of one molecule. Here each operator has its own ``autograd.Function``, and kernels are called
directly if nothing records or replaces calls (tracing, fake tensors).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = Callable[..., Any]
LIBRARY: Any = torch.library.Library("tesseral", "DEF")  # type: ignore[no-untyped-call]
CALLS: dict[str, Call] = {}  # results of ``register`` by name, for use in derivatives


def _recorded() -> bool:
    """Whether calls are intercepted by tracing, fake tensors or torch.compile."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch.compiler.is_compiling()


def _needs_gradient(inputs: tuple[Any, ...]) -> bool:
    if torch.is_grad_enabled():
        for value in inputs:
            if isinstance(value, Tensor) and value.requires_grad:
                return True
    return False


def register(
    name: str, schema: str, kernel: Call, shapes: Call, setup: Call | None, derivative: Call | None
) -> Call:
    """Define ``torch.ops.tesseral.NAME`` for CPUs.

    Args:
        name: name of the operator.
        schema: its arguments and results, ``(Tensor x) -> Tensor``.
        kernel: function that computes the operator for plain tensors.
        shapes: function that makes empty results of the right shapes, for tracing.
        setup: ``(ctx, inputs, output)``, saves what the derivative needs; None without derivative.
        derivative: ``(ctx, *gradients)`` to gradients of the inputs, made of operators again.

    Returns:
        A function equivalent to ``torch.ops.tesseral.NAME``, faster if nothing is recorded.
    """
    LIBRARY.define(name + schema)
    LIBRARY.impl(name, kernel, "CPU")
    torch.library.register_fake(f"tesseral::{name}", shapes, lib=LIBRARY)
    operator = getattr(torch.ops.tesseral, name).default
    if setup is None or derivative is None:
        return lambda *inputs: operator(*inputs) if _recorded() else kernel(*inputs)

    keep, derive = setup, derivative

    def below(*inputs: Any) -> Any:
        if not _recorded() and inputs[0].is_cpu:
            return kernel(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*inputs)

    class Derived(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = below(*inputs)
            keep(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return derive(ctx, *gradients)

    Derived.__name__ = f"tesseral_{name}"  # the name shown in profiles

    def above(*inputs: Any) -> Any:
        if _needs_gradient(inputs):
            return Derived.apply(*inputs)  # type: ignore[no-untyped-call]
        return below(*inputs)

    LIBRARY.impl(name, above, "Autograd")
    return lambda *inputs: operator(*inputs) if _recorded() else above(*inputs)
