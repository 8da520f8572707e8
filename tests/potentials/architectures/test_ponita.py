"""PONITA: its kernels, its rotation error, its random orientations."""

import pytest
import torch
from oriented import CUTOFF, calibrated, rattled_silicon_carbide

from tesseral.potentials import testing
from tesseral.potentials.architectures.ponita import PONITAConfig, SpatialConvolution
from tesseral.potentials.blocks.convolution import SplineConvolution
from tesseral.potentials.blocks.sphere import EdgeFeatures, EdgeHarmonics, sphere_grid
from tesseral.potentials.derivatives import predict


def config(**options):
    sizes = {"cutoff": CUTOFF, "channels": 8, "layers": 2, "l_max": 2, "orientations": 14}
    sizes |= {"random_orientations": False}
    return PONITAConfig(**{**sizes, **options})


@pytest.fixture
def graph():
    return rattled_silicon_carbide()


def potential(graph, **options):
    return calibrated(config(**options), graph)


def test_rotation_error_falls_with_the_orientations(graph):
    errors = []
    for orientations in (6, 14, 26, 50, 110):
        made = potential(graph, orientations=orientations)
        forces = testing.rotation_errors(made, graph, 4)[1]
        errors.append(forces / float(predict(made, graph).forces.square().mean().sqrt()))
        print(f"{orientations:4d} orientations: {errors[-1]:.1e} of the RMS force")
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


def test_symmetries_of_the_cube_are_exact(graph):
    """A quarter turn, a turn about the space diagonal and the inversion map the grid on itself."""
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    third = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    matrices = torch.stack([quarter, third, -torch.eye(3, dtype=torch.float64)])
    errors = testing.orthogonal_errors(potential(graph), graph, matrices)
    print("energy, forces, virial:", errors)
    assert max(errors) < 1e-12


@pytest.mark.usefixtures("seed")
def test_constant_features_need_no_grid():
    """The sum on the grid is that of the first layer where features are the same on all of it."""
    options = config(orientations=26)
    grid = SpatialConvolution(options).double()
    plain = SplineConvolution(
        0, options.l_max, options.l_max, options.channels, options.spline_intervals, CUTOFF
    ).double()
    splines = plain.coefficients.detach()  # (K, L, C)
    sizes = torch.tensor([3.0, 9.0, 15.0], dtype=torch.float64).sqrt()  # (2 l + 1) L
    grid.radial.coefficients.data = (splines * sizes.view(1, 3, 1)).flatten(1)
    vectors = torch.randn(20, 3, dtype=torch.float64) * 1.5
    harmonics, radii = EdgeHarmonics(options.l_max)(vectors, torch.float64)
    senders, receivers = torch.randint(0, 5, (20,)), torch.randint(0, 4, (20,)).sort().values
    features = torch.randn(5, 1, options.channels, dtype=torch.float64)
    edges = EdgeFeatures(harmonics, radii, senders, receivers)
    found = grid(features.expand(-1, 26, -1), edges, 4)
    torch.testing.assert_close(found, plain(features, edges, 4), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("seed")
def test_kernel_is_a_series_of_legendre_polynomials():
    """It is a series of Legendre polynomials of the cosine, each of unit mean square."""
    grid = SpatialConvolution(config()).double()
    harmonics, _ = EdgeHarmonics(2)(torch.tensor([[0.0, 0.0, 2.0]]).double(), torch.float64)
    angular = (harmonics @ grid.legendre).view(14, 3)
    points = sphere_grid(14, 1)[0][:, 1:] / 3**0.5
    cosine = points[:, 2:]
    legendre = torch.cat([torch.ones_like(cosine), cosine, 1.5 * cosine.square() - 0.5], dim=1)
    norm = torch.tensor([1.0, 3.0, 5.0]).double().sqrt() / 3**0.5
    torch.testing.assert_close(angular, legendre * norm, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("scripted", [False, True])
def test_random_orientations_in_training_only(graph, scripted):
    made, other = potential(graph, random_orientations=True), potential(graph)
    other.load_state_dict(made.state_dict())
    if scripted:
        made = torch.jit.script(made)
    energies = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        energies.append(float(predict(made, graph).energy))
    fixed = [float(predict(made.eval(), graph).energy) for _ in range(2)]
    print("training", energies, "evaluation", fixed)
    assert energies[0] == pytest.approx(energies[2], rel=1e-12)
    assert abs(energies[0] - energies[1]) > 1e-6
    assert fixed[0] == pytest.approx(fixed[1], rel=1e-12)
    assert fixed[0] == pytest.approx(float(predict(other, graph).energy), rel=1e-12)


def test_net_force_and_virial_in_random_orientations(graph):
    """Forces and virial of a turned grid are still those of one energy, and sum to zero."""
    made = potential(graph, random_orientations=True)

    def energy_of(changed):
        torch.manual_seed(3)
        return predict(made, changed)

    here = energy_of(graph)
    assert float(here.forces.sum(0).norm()) < 1e-12
    strain = torch.zeros(3, 3, dtype=torch.float64)
    strain[0, 1] = strain[1, 0] = 0.5e-5
    rise = (
        energy_of(testing.strained(graph, strain)).energy
        - energy_of(testing.strained(graph, -strain)).energy
    )
    slope = float(rise) / 2e-5
    print("virial", float(here.virial[0, 0, 1]), "finite difference", -slope)
    assert -slope == pytest.approx(float(here.virial[0, 0, 1]), rel=1e-6)
