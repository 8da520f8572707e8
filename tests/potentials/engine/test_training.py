"""The training pass of Facet against autograd through the same operators."""

from __future__ import annotations

import weakref

import pytest
import torch

from tesseral.data.graph import Edges
from tesseral.potentials.architectures.egnn import EGNNConfig
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.derivatives import from_gradient
from tesseral.potentials.engine import training
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.select import select_ops

OPTIONS = {
    "default": {},
    "molecules": {"channels": 8, "l_max": 3, "mixings": 2, "grid_channels": 16},
    "one layer": {"layers": 1, "channels": 5, "l_max": 2, "mixings": 2, "grid_channels": 7},
    "three layers": {"layers": 3, "channels": 6, "l_max": 2, "l_max_message": 1},
    "scalars": {"l_max": 0, "channels": 4},
}
EXTRAS = {
    "binding": {"binding_energies": (-3.0, -4.0)},
    "close pairs": {"inner_radii": (1.9, 2.0, 2.1)},
    "levels": {"other_levels": ((0.1, 0.2),)},
}


def potential_of(dtype=torch.float64, extras=None, **options):
    torch.manual_seed(0)
    config = FacetConfig(cutoff=4.0, **options)
    potential = MessagePassing(config, (6, 14), energy_scale=1.3, dtype=dtype, **(extras or {}))
    return select_ops(potential, "fused")


def inputs(n=9, levels=1):
    """Two structures, one atom without neighbours, distances from 1.5 Å on."""
    torch.manual_seed(1)
    senders, receivers = (~torch.eye(n, dtype=torch.bool)).nonzero().T
    keep = (senders < 5) == (receivers < 5)
    keep &= (senders < n - 1) & (receivers < n - 1)
    receivers, senders = senders[keep], receivers[keep]
    vectors = torch.nn.functional.normalize(torch.randn(len(senders), 3, dtype=torch.float64))
    vectors = vectors * (1.5 + 2.6 * torch.rand(len(senders), 1, dtype=torch.float64))
    species = torch.randint(2 * levels, (n,))
    return species, Edges(vectors, senders, receivers), (torch.arange(n) >= 5).long()


def by_autograd(potential, species, edges):
    edges = edges._replace(vectors=edges.vectors.detach().requires_grad_(True))
    energies = potential(species, edges)
    (gradient,) = torch.autograd.grad(energies.sum(), edges.vectors, create_graph=True)
    return energies, gradient


def gradients(potential, energies, gradient, edges, structure):
    """Gradients by all weights of a loss with every kind of label."""
    forces, virial = from_gradient(gradient, edges, structure, 2)
    torch.manual_seed(2)
    loss = (energies * torch.randn_like(energies)).sum()
    loss = loss + (forces - torch.randn_like(forces)).square().sum()
    loss = loss + (virial - torch.randn_like(virial)).square().sum()
    return torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)


@pytest.mark.parametrize("extras", [None, *EXTRAS])
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_autograd(name, extras):
    """Energies, gradient by the vectors and gradients of a loss by all weights (float64)."""
    extra = EXTRAS.get(extras, {})
    potential = potential_of(extras=extra, **OPTIONS[name])
    assert training.applies(potential)
    species, edges, structure = inputs(levels=potential.levels)
    expected = by_autograd(potential, species, edges)
    found = training.energies_and_gradient(potential, species, edges)
    errors = [float((a - b).detach().abs().max()) for a, b in zip(found, expected, strict=True)]
    names = [name for name, _ in potential.named_parameters()]
    wanted = gradients(potential, *expected, edges, structure)
    got = gradients(potential, *found, edges, structure)
    worst = {
        name: float((a - b).abs().max() / b.abs().max().clamp(min=1e-3))
        for name, a, b in zip(names, got, wanted, strict=True)
    }
    largest = max(worst, key=worst.get)
    print(f"{errors[0]:.1e} eV, {errors[1]:.1e} eV/Å, {largest} {worst[largest]:.1e}")
    assert max(errors) < 1e-9
    assert worst[largest] < 1e-9


def test_equals_autograd_in_single_precision():
    """The same within rounding in float32."""
    potential = potential_of(torch.float32)
    species, edges, structure = inputs()
    wanted = gradients(potential, *by_autograd(potential, species, edges), edges, structure)
    found = training.energies_and_gradient(potential, species, edges)
    got = gradients(potential, *found, edges, structure)
    worst = max(float((a - b).norm() / b.norm()) for a, b in zip(got, wanted, strict=True))
    print(f"relative error {worst:.1e}")
    assert worst < 1e-5


def test_frozen_weights_and_no_edges():
    """Weights that are not trained have no gradient; atoms without neighbours have no forces."""
    potential = potential_of()
    potential.layers[1].convolution.coefficients.requires_grad_(False)
    species, edges, structure = inputs()
    energies, gradient = training.energies_and_gradient(potential, species, edges)
    (energies.sum() + gradient.square().sum()).backward()
    assert potential.layers[1].convolution.coefficients.grad is None
    assert float(potential.layers[0].convolution.coefficients.grad.abs().max()) > 0
    none = Edges(edges.vectors[:0], edges.senders[:0], edges.receivers[:0])
    energies, gradient = training.energies_and_gradient(potential, species, none)
    energies.sum().backward()
    assert gradient.shape == (0, 3)
    assert torch.isfinite(potential.embedding.grad).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_what_a_step_keeps_is_freed_with_its_results(layers, monkeypatch):
    kept = []
    monkeypatch.setattr(
        training, "Passes", lambda given, made=training.Passes: _noted(made(given), kept)
    )
    potential = potential_of(layers=layers)
    species, edges, _ = inputs()
    energies, gradient = training.energies_and_gradient(potential, species, edges)
    (energies.sum() + gradient.square().sum()).backward()
    del energies, gradient
    assert [reference() for reference in kept] == [None]


def _noted(made, kept):
    kept.append(weakref.ref(made))
    return made


def test_other_potentials_use_autograd():
    """Broken symmetry, activations, plain PyTorch and other architectures are refused."""
    assert not training.applies(potential_of(relaxed=True))
    assert not training.applies(potential_of(activation="silu"))
    assert not training.applies(select_ops(potential_of(), "reference"))
    assert not training.applies(select_ops(MessagePassing(EGNNConfig(), (6, 14)), "auto"))
