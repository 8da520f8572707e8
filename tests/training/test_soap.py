"""The optimiser: Adam for vectors, curvature for matrices, exact after a restart."""

import copy

import pytest
import torch
from torch import nn

from tesseral.training.soap import Soap


def quadratic(seed=0):
    """|A (X - C) B|² with badly conditioned A and B, of which Adam sees no axis."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def stretched(n):
        basis = torch.linalg.qr(matrix(n, n)).Q
        return basis * torch.logspace(0, -2, n, dtype=torch.float64) @ matrix(n, n)

    left, right, target = stretched(8), stretched(6), matrix(2, 8, 6)
    weight = nn.Parameter(torch.zeros(2, 8, 6, dtype=torch.float64))
    return weight, lambda: (left @ (weight - target) @ right).square().mean()


def minimise(optimizer, loss, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return float(loss().detach())


def test_gets_lower_than_adam_where_the_axes_are_hidden():
    weight, loss = quadratic()
    soap = minimise(Soap([weight], lr=3e-2), loss, 400)
    weight, loss = quadratic()
    adam = minimise(torch.optim.Adam([weight], lr=3e-2, betas=(0.95, 0.95)), loss, 400)
    print(f"loss after 400 steps: SOAP {soap:.1e}, Adam {adam:.1e}")
    assert soap < 0.7 * adam


@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 1, 5), ()])
def test_vectors_take_the_steps_of_adam(shape):
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape, dtype=torch.float64)) for _ in range(2))
    gradients = torch.randn(20, *shape, dtype=torch.float64)
    soap = Soap([ours], lr=0.01, weight_decay=0.1)
    adam = torch.optim.AdamW([theirs], lr=0.01, betas=(0.95, 0.95), weight_decay=0.1)
    ours.grad = gradients[0]  # the first step of SOAP only measures
    soap.step()
    for gradient in gradients:
        ours.grad, theirs.grad = gradient, gradient.clone()
        soap.step()
        adam.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_steps_do_not_depend_on_the_basis():
    """Rotated weights and gradients take rotated steps, which Adam's do not."""
    torch.manual_seed(1)
    gradients = torch.randn(30, 4, 3, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    results = []
    for turn in (torch.eye(4, dtype=torch.float64), rotation):
        weight = nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
        optimizer = Soap([weight], lr=0.01, refresh=3)
        for gradient in gradients:
            weight.grad = turn @ gradient
            optimizer.step()
        results.append(turn.T @ weight.detach())
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def test_goes_on_from_its_state_exactly():
    weight, loss = quadratic()
    optimizer = Soap([weight], lr=3e-2)
    minimise(optimizer, loss, 25)
    kept, state = weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
    minimise(optimizer, loss, 25)
    expected = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(kept)
    again = Soap([weight], lr=3e-2)
    again.load_state_dict(state)
    minimise(again, loss, 25)
    assert torch.equal(weight, expected)


def test_parameters_of_one_shape_do_not_disturb_each_other():
    torch.manual_seed(2)
    gradients = torch.randn(15, 2, 4, 3)
    together = [nn.Parameter(torch.zeros(4, 3)) for _ in range(2)]
    optimizer = Soap(together, lr=0.01)
    for pair in gradients:
        for parameter, gradient in zip(together, pair, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for number, expected in enumerate(together):
        alone = nn.Parameter(torch.zeros(4, 3))
        optimizer = Soap([alone], lr=0.01)
        for pair in gradients:
            alone.grad = pair[number]
            optimizer.step()
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-6)
