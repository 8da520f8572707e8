"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for many small matrices.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv 2409.11321. The weights of
these potentials are stacks of small matrices over channels, one for each degree or path. Each
matrix has its own left and right basis. All matrices of one shape are processed together, since
function calls cost more than arithmetic at this size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, Any]


class Soap(Optimizer):
    """Adam on gradients rotated into the eigenbasis of their covariances.

    For matrices G (m, n): L and R, the moving averages of G Gᵀ and Gᵀ G, have the eigenvectors U
    and V. Adam's second moment is that of Uᵀ G V, where steep and flat directions are separated;
    the step is rotated back. Vectors and single rows or columns use plain Adam.

    Args:
        parameters: tensors, or groups of them; their last two dimensions are the matrices.
        lr: learning rate.
        betas: decay of the mean gradient, and of its square, L and R.
        eps: constant added to the root of the second moment.
        weight_decay: weight decay, decoupled as in AdamW.
        refresh: number of steps between updates of the eigenvectors.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        refresh: int = 10,
    ) -> None:
        """Create the optimiser; its first step only initialises the covariances."""
        names = ("lr", "betas", "eps", "weight_decay", "refresh")
        values = (lr, betas, eps, weight_decay, refresh)
        super().__init__(parameters, dict(zip(names, values, strict=True)))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; a closure is called first and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            stacks: dict[tuple[int, int], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    stacks.setdefault(_matrix_shape(parameter), []).append(parameter)
            for shape, parameters in stacks.items():
                self._step(parameters, shape, self.state[parameters[0]], group)
        return loss

    def _step(
        self, parameters: list[Tensor], shape: tuple[int, int], state: State, options: State
    ) -> None:
        """Update the weights of one shape; the first of them holds the common state."""
        gradients = [_gradient(each).reshape(-1, *shape) for each in parameters]
        gradient = torch.cat(gradients)  # (B, m, n)
        if not state:
            state.update(_initial(gradient))
            return
        state["step"] += 1
        number = state["step"]
        beta1, beta2 = options["betas"]
        state["mean"].lerp_(gradient, 1.0 - beta1)
        rotated = _rotate(gradient, state)
        state["square"].mul_(beta2).addcmul_(rotated, rotated, value=1.0 - beta2)
        root = state["square"].div(1.0 - beta2**number).sqrt_().add_(options["eps"])
        step = _rotate_back(_rotate(state["mean"], state).div(root), state)
        step.mul_(-options["lr"] / (1.0 - beta1**number))
        kept = 1.0 - options["lr"] * options["weight_decay"]
        parts = torch.split(step, [len(part) for part in gradients])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.mul_(kept).add_(part.view_as(parameter))
        if "left" in state:
            state["left"].lerp_(gradient @ gradient.mT, 1.0 - beta2)
            state["right"].lerp_(gradient.mT @ gradient, 1.0 - beta2)
            if number % options["refresh"] == 0:
                _refresh(state, "left", -2)
                _refresh(state, "right", -1)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """Rows and columns of a parameter's matrices; (1, 1) if it has none."""
    rows, columns = parameter.shape[-2:] if parameter.ndim > 1 else (1, 1)
    return (rows, columns) if min(rows, columns) > 1 else (1, 1)


def _initial(gradient: Tensor) -> State:
    """State after the first gradient (B, m, n)."""
    state: State = {"step": 0}
    state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    if gradient.shape[1] > 1:
        state["left"], state["right"] = gradient @ gradient.mT, gradient.mT @ gradient
        for name in ("left", "right"):
            state[f"{name}_basis"] = torch.linalg.eigh(state[name]).eigenvectors
    return state


def _rotate(matrices: Tensor, state: State) -> Tensor:
    """Rotate into the eigenbasis, Uᵀ G V."""
    if "left" not in state:
        return matrices
    rotated: Tensor = state["left_basis"].mT @ matrices @ state["right_basis"]
    return rotated


def _rotate_back(matrices: Tensor, state: State) -> Tensor:
    """Rotate out of the eigenbasis, U G Vᵀ."""
    if "left" not in state:
        return matrices
    rotated: Tensor = state["left_basis"] @ matrices @ state["right_basis"].mT
    return rotated


def _refresh(state: State, side: str, dimension: int) -> None:
    """Step of orthogonal iteration, steep directions first; squares follow their vectors."""
    basis = state[f"{side}_basis"]
    product = state[side] @ basis
    order = (basis * product).sum(-2).argsort(dim=-1, descending=True)  # of the curvatures, (B, m)
    columns = order.unsqueeze(-2).expand_as(product)
    state[f"{side}_basis"] = torch.linalg.qr(product.gather(-1, columns)).Q
    moved = order.unsqueeze(-1 if dimension == -2 else -2).expand_as(state["square"])
    state["square"] = state["square"].gather(dimension, moved)
