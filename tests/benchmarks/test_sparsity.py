"""Parts removed from a trained Facet: the rest computes the same if they did nothing."""

import pytest
import torch
from ase.build import bulk

from benchmarks.study.sparsity import cut
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.modelfile import ModelCard, build_potential
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.derivatives import predict

CONFIG = FacetConfig(cutoff=3.6, channels=6, grid_channels=8, l_max=3, mixings=2)


@pytest.fixture
def graph():
    atoms = bulk("SiC", "zincblende", a=4.38, cubic=True)
    atoms.rattle(0.15, seed=0)
    return atomic_graph(atoms.numbers, atoms.positions, atoms.cell.array, True, (6, 14), 3.6)


@pytest.fixture
def card():
    return ModelCard(
        config=CONFIG,
        elements=(6, 14),
        reference_energies=(-1.0, -2.0),
        energy_scale=1.0,
        mean_neighbors=12.0,
        dtype="float64",
    )


@pytest.fixture
def potential(card, graph):
    torch.manual_seed(0)
    made = build_potential(card, "reference")
    calibrate(made, graph)
    for readout in made.readouts:
        torch.nn.init.normal_(readout.linear.weight, std=0.1)
    return made


def assert_same(first, second, graph):
    one, other = predict(first, graph), predict(second, graph)
    scale = float(one.forces.abs().max())
    print(f"forces {float((one.forces - other.forces).abs().max()):.1e} apart of {scale:.1e}")
    torch.testing.assert_close(one.forces, other.forces, rtol=0, atol=1e-6 * scale)


@torch.no_grad()
def test_grid_channels_that_do_nothing_are_removed(potential, card, graph):
    for layer in potential.layers:
        for number, mixing in enumerate(layer.mixings):
            mixing.leave.weight[:, [1, 4 + number, 7]] = 0
    small, own = cut(potential, card, {"grid_channels": 5}, graph)
    assert own.config.grid_channels == small.layers[0].mixings[0].bias.shape[1] == 5
    assert_same(potential, small, graph)


@torch.no_grad()
def test_a_channel_that_is_a_copy_of_another_is_made_up_for(potential, card, graph):
    for layer in potential.layers:
        for mixing in layer.mixings:
            for part in (mixing.enter.weight, mixing.second.weight, mixing.bias):
                part[..., 3] = 2 * part[..., 5]
    small, _ = cut(potential, card, {"grid_channels": 7}, graph)
    assert_same(potential, small, graph)


@torch.no_grad()
def test_degrees_that_do_nothing_are_removed(potential, card, graph):
    for layer in potential.layers:
        for number, path in enumerate(layer.convolution.paths):
            if path[0] == 2 or path[1] == 3:  # degree 2 of messages, 3 of edges
                layer.convolution.coefficients[:, number] = 0
        layer.message.weight[3] = 0
        if len(layer.skip.weight) > 2:
            layer.skip.weight[2] = 0
        layer.mixings[0].leave.weight[3:] = 0
    small, _ = cut(potential, card, {"l_max": 2, "l_max_message": 1}, graph)
    assert small.layers[1].convolution.coefficients.shape[1] < 18
    assert_same(potential, small, graph)
