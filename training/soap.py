"""Optimisers. SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for many small matrices.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv 2409.11321. The weights of
these potentials are stacks of small matrices over channels, one for each degree or path. Each
matrix has its own left and right basis. All matrices of one shape are processed together, since
function calls cost more than arithmetic at this size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

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
        numbers = torch.tensor(self.advance(), dtype=torch.float64)
        self.update(numbers[:, 0].to(self.param_groups[0]["params"][0].device))
        self.refresh()
        return loss

    # The three parts of a step: only `update` has operations on all steps, always the same ones, so
    # that a GPU can record it.

    def advance(self) -> list[tuple[float, float]]:
        """Count a step; the factors of `update`, and those that leave the weights as they are."""
        factors: list[tuple[float, float]] = []
        for _, options, state in self._stacks():
            if state:
                state["step"] += 1
            number, rate = state.get("step", 0) or 1, options["lr"]
            by_mean, by_square = (1.0 - beta**number for beta in options["betas"])
            kept = 1.0 - rate * options["weight_decay"]
            factors += [(by_square, 1.0), (-rate / by_mean, 0.0), (kept, 1.0)]
        return factors

    @torch.no_grad()
    def update(self, factors: Tensor) -> None:
        """Update the weights.

        Args:
            factors: float64 numbers, the first or the second ones from `advance`.
        """
        parameters: list[Tensor] = []
        steps: list[Tensor] = []
        for number, (own, options, state) in enumerate(self._stacks()):
            shape = _matrix_shape(own[0])
            gradients = [_gradient(each).reshape(-1, *shape) for each in own]
            gradient = torch.cat(gradients)  # (B, m, n)
            if not state:
                state.update(_initial(gradient))
                continue
            by_square, by_mean, kept = factors[3 * number : 3 * number + 3].unbind()
            step = _step(gradient, state, options, by_square).mul_(by_mean)
            torch._foreach_mul_(own, kept.to(step.dtype))
            parts = torch.split(step, [len(part) for part in gradients])
            parameters += own
            steps += [part.view_as(each) for part, each in zip(parts, own, strict=True)]
        if parameters:
            torch._foreach_add_(parameters, steps)

    @torch.no_grad()
    def refresh(self) -> None:
        """Update the eigenvectors, if it is time."""
        for _, options, state in self._stacks():
            if "left" in state and state["step"] > 0 and state["step"] % options["refresh"] == 0:
                _refresh(state, "left", -2)
                _refresh(state, "right", -1)

    def _stacks(self) -> Iterator[tuple[list[Tensor], State, State]]:
        """Parameters of one shape, their group, and their common state, that of the first one."""
        for group in self.param_groups:
            stacks: dict[tuple[int, int], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    stacks.setdefault(_matrix_shape(parameter), []).append(parameter)
            for parameters in stacks.values():
                yield parameters, group, self.state[parameters[0]]


class Adam(AdamW):
    """AdamW in the same three parts."""

    def __init__(
        self, parameters: Iterable[dict[str, Any]], lr: float, weight_decay: float
    ) -> None:
        """Create the optimiser for groups of parameters."""
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)

    def advance(self) -> list[tuple[float, float]]:
        """Learning rates of the groups, and zeros."""
        return [(group["lr"], 0.0) for group in self.param_groups]

    def update(self, factors: Tensor) -> None:
        """Take a step with the given learning rates, which are left as they are in the groups."""
        rates = factors.float().unbind() if factors.is_cuda else factors.tolist()
        before = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates, strict=True):
            group.update(lr=rate, capturable=factors.is_cuda)
        self.step()
        for group, known in zip(self.param_groups, before, strict=True):
            group["lr"] = known

    def refresh(self) -> None:
        """Do nothing."""


def _step(gradient: Tensor, state: State, options: State, by_square: Tensor) -> Tensor:
    """Step (B, m, n), without the learning rate."""
    beta1, beta2 = options["betas"]
    state["mean"].lerp_(gradient, 1.0 - beta1)
    rotated = _rotate(gradient, state)
    state["square"].mul_(beta2).addcmul_(rotated, rotated, value=1.0 - beta2)
    root = state["square"].div(by_square).sqrt_().add_(options["eps"])
    step = _rotate_back(_rotate(state["mean"], state).div(root), state)
    if "left" in state:
        state["left"].lerp_(gradient @ gradient.mT, 1.0 - beta2)
        state["right"].lerp_(gradient.mT @ gradient, 1.0 - beta2)
    return step


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
    basis.copy_(torch.linalg.qr(product.gather(-1, columns)).Q)
    moved = order.unsqueeze(-1 if dimension == -2 else -2).expand_as(state["square"])
    state["square"].copy_(state["square"].gather(dimension, moved))
