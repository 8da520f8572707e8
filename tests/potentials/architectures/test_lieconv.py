"""LieConv: its sample of orientations, its kernels, its rotation error."""

import pytest
import torch
from oriented import CUTOFF, calibrated, rattled_silicon_carbide

from tesseral.potentials import testing
from tesseral.potentials.architectures.lieconv import (
    GROUPS,
    LieConvConfig,
    LieConvLayer,
    sampled_orientations,
    turned_harmonics,
)
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics, Harmonics
from tesseral.potentials.derivatives import predict


def config(**options):
    sizes = {"cutoff": CUTOFF, "channels": 8, "orientations": 24, "random_orientations": False}
    return LieConvConfig(**{**sizes, **options})


@pytest.fixture
def graph():
    return rattled_silicon_carbide()


def potential(graph, **options):
    return calibrated(config(**options), graph)


@pytest.mark.parametrize("number", GROUPS)
def test_the_sample_is_a_group_with_the_inversion(number):
    matrices = sampled_orientations(number)
    products = (matrices.unsqueeze(1) @ matrices).flatten(0, 1)
    assert len(matrices) == number
    for found in (products, -matrices):
        inner = torch.einsum("pij,qij->pq", found, matrices)  # 3 for equal matrices
        assert float((inner.max(1).values - 3).abs().max()) < 1e-12


@pytest.mark.usefixtures("seed")
def test_harmonics_seen_from_an_orientation():
    matrices = sampled_orientations(24)[[3, 20]]
    points = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64))
    tables = turned_harmonics(matrices, 3)
    for matrix, table in zip(matrices, tables, strict=True):
        seen = Harmonics(3)(points @ matrix)  # of Qᵀ x
        torch.testing.assert_close(Harmonics(3)(points) @ table, seen, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("seed")
def test_a_layer_turns_with_its_group():
    """Turned by G, the function of each atom is f(G⁻¹ Q): its values are permuted."""
    layer, matrices = LieConvLayer(config(), 4.0).double(), sampled_orientations(24)
    turn = matrices[17]
    vectors = torch.randn(12, 3, dtype=torch.float64)
    senders, receivers = torch.randint(0, 5, (12,)), torch.randint(0, 5, (12,)).sort().values
    features = torch.randn(5, 24, 8, dtype=torch.float64)
    moved = torch.cdist((turn.T @ matrices).flatten(1), matrices.flatten(1)).argmin(1)

    def update(vectors, features):
        harmonics, radii = EdgeHarmonics(2)(vectors, torch.float64)
        edges = EdgeFeatures(harmonics, radii, senders, receivers)
        return layer(features, torch.zeros(5, dtype=torch.int64), edges, 5)

    turned = update(vectors @ turn.T, features[:, moved])
    torch.testing.assert_close(turned, update(vectors, features)[:, moved], rtol=0, atol=1e-11)


def test_rotation_error_falls_with_the_orientations(graph):
    errors = {}
    for options in ((24, 2), (120, 2), (24, 1)):
        made = potential(graph, orientations=options[0], l_max=options[1])
        forces = testing.rotation_errors(made, graph, 4)[1]
        errors[options] = forces / float(predict(made, graph).forces.square().mean().sqrt())
        print(f"{options[0]:4d} orientations, l_max {options[1]}: {errors[options]:.1e} of the RMS")
    assert errors[120, 2] < 0.2 * errors[24, 2]
    assert errors[24, 1] < 0.2 * errors[24, 2]


def test_mirror_images_have_one_energy(graph):
    inverted = testing.transformed(graph, -torch.eye(3, dtype=torch.float64))
    made = potential(graph)
    energies = [float(predict(made, one).energy) for one in (graph, inverted)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)
