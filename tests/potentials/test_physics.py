"""The shared physics suite for every configuration of the potential, with its numbers printed."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from ase.build import bulk, fcc111, molecule
from seeds import reseed

from tesseral.data.graph import Edges
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials import testing
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.calibrate import calibrate
from tesseral.potentials.config import PotentialConfig
from tesseral.potentials.derivatives import forces_and_virial, predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops

ELEMENTS = (6, 14)
CUTOFF = 3.6


@dataclass(frozen=True)
class Case:
    """A configuration, how far it may fail to turn, relative to the RMS of the forces, and how
    much these may grow in a cell with lengths of 0.9.
    """

    name: str
    config: PotentialConfig
    rotation: float
    growth: float = 100.0
    inner_radii: tuple[float, ...] = ()


def case(name, rotation=1e-11, l_max=2, **options):
    sizes = {"cutoff": CUTOFF, "channels": 8, "grid_channels": 12, "l_max": l_max}
    return Case(name, FacetConfig(**sizes, **options), rotation)


def other(architecture, name=None, rotation=1e-11, growth=100.0, **options):
    sizes = {"cutoff": CUTOFF, "channels": 8, "layers": 2}
    config = make_config(architecture, **{**sizes, **options})
    return Case(name or architecture, config, rotation, growth)


def joined(made):
    """The case with inner radii among the distances of Si and C, so that most bonds are close."""
    return replace(made, name=f"{made.name}-close", inner_radii=(1.5, 1.95, 2.2))


CASES = [
    case("product"),
    case("product-l3", l_max=3, layers=1),
    case("product-l1-edge2", l_max=1, l_max_edge=2),
    case("product-l4-message2", l_max=4, l_max_message=2),
    case("three-layers-zbl", layers=3, zbl=True),  # with binding energies too
    joined(case("zbl", zbl=True)),
    case("product-order3", order=3),
    case("silu-86", activation="silu", grid_points=86, rotation=0.03),
    case("relaxed", relaxed=True, mixings=2),  # nothing is broken before training
    case("relaxed-group", relaxed=True, group="C∞v", layers=1),
    other("dimenet", l_max=2),
    other("egnn"),
    other("frames", l_max=2, frame_cutoff=3.0),
    other("frames", "frames-4mm", l_max=2, group="4mm", rotation=math.inf),  # see test_frames
    other("lieconv", orientations=120, channels=4, random_orientations=False, rotation=0.05),
    other("mace", l_max=2, growth=2000.0),  # products of three neighbours in each of two layers
    other("mace", "mace-cormorant", l_max=1, trees=["A", "(A x)", "(x x)"]),
    other("nequip", l_max=2),
    joined(other("nequip", l_max=2)),
    other("nequip", "nequip-8-4-2", l_max=2, channels_by_degree=[8, 4, 2]),
    other(
        "nequip",
        "nequip-norm",
        l_max=2,
        channels_by_degree=[8, 4, 2],
        field_norm=True,
        embedding_channels=2,
        element_self_connection=False,
        gates="silu",
        linear_readout=True,
    ),
    other("painn"),
    other("ponita", l_max=2, orientations=50, random_orientations=False, rotation=0.1),
    other("schnet"),
    other("se3transformer", l_max=2),
    other("segnn", l_max=2),
    other("segnn", l_max=2, l_max_edge=1),
]
DTYPES = [torch.float32, torch.float64]


def graph_of(atoms):
    return atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, ELEMENTS, CUTOFF
    )


def silicon_carbide(seed=0, repeat=1):
    atoms = bulk("SiC", "zincblende", a=4.38, cubic=True)
    atoms.rattle(0.15, seed=seed)
    return atoms * (repeat, repeat, repeat)


FUSED = pytest.param(
    "fused", marks=pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
)


@pytest.fixture(scope="module", params=["reference", FUSED])
def ops(request):
    """Plain PyTorch, or the compiled kernels."""
    return request.param


@pytest.fixture(scope="module", params=CASES, ids=lambda c: c.name)
def potentials(request, ops):
    """The same weights in float32 and float64, with the case they belong to."""
    made = {}
    for dtype in DTYPES:
        reseed(0)
        potential = MessagePassing(
            request.param.config,
            ELEMENTS,
            reference_energies=[-155.0, -108.0],
            binding_energies=[-6.0, -4.0] if request.param.config.layers == 3 else None,
            inner_radii=request.param.inner_radii,
            energy_scale=1.0,
            mean_neighbors=12.0,
        )
        # Forces of the size that a trained potential gives, so that errors mean something.
        calibrate(potential, graph_of(silicon_carbide()))
        for readout in potential.readouts:
            torch.nn.init.normal_(readout.linear.weight, std=0.1)
            if not request.param.config.linear_readout:
                torch.nn.init.normal_(readout.output.weight, std=0.1)
        made[dtype] = select_ops(potential.to(dtype), ops)
    return request.param, made


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def potential(request, potentials):
    return potentials[1][request.param]


def is_double(potential):
    return next(potential.parameters()).dtype == torch.float64


def test_physics_report(potentials):
    """Rotation, reflection, translation, permutation, ΣF = 0, finite differences; both dtypes."""
    for dtype, potential in potentials[1].items():
        single = dtype == torch.float32
        graph = graph_of(silicon_carbide())
        report = testing.physics_report(potential, graph, step=5e-3 if single else 1e-4)
        scale = float(predict(potential, graph).forces.square().mean().sqrt())
        print(f"\n{potentials[0].name}, {dtype}; RMS of the forces {scale:.2f} eV/Å")
        for law, error in report.items():
            print(f"  {law:40s} {error:.1e}")
        for law, error in report.items():
            if "finite" in law:
                limit = 1e-3 if single else 1e-6
            elif law.startswith(("rotation", "reflection")):
                limit = max(potentials[0].rotation, 1e-5 if single else 0)
            else:
                limit = 1e-4 if single else 1e-11
            assert error < limit * scale, law


def test_rotation_error_against_grid_size():
    """With silu the error falls with the grid; with product it is rounding on every grid."""
    errors = {}
    for activation, grids in (("silu", (14, 26, 50, 110)), ("product", (26, 50, 110))):
        for points in grids:
            reseed(0)
            config = FacetConfig(
                cutoff=CUTOFF,
                channels=8,
                l_max=2,
                grid_channels=12,
                activation=activation,
                grid_points=points,
            )
            potential = MessagePassing(config, ELEMENTS, mean_neighbors=12.0, dtype=torch.float64)
            calibrate(potential, graph_of(silicon_carbide()))
            for readout in potential.readouts:
                torch.nn.init.normal_(readout.linear.weight, std=0.1)
            energy, forces, _ = testing.rotation_errors(potential, graph_of(silicon_carbide()))
            scale = float(predict(potential, graph_of(silicon_carbide())).forces.square().mean())
            errors[activation, points] = forces / scale**0.5
            print(
                f"{activation:8s} {points:4d} points: energy {energy:.1e} eV/atom, "
                f"forces {errors[activation, points]:.1e} of their RMS"
            )
    silu = [error for (activation, _), error in errors.items() if activation == "silu"]
    assert silu == sorted(silu, reverse=True)
    assert silu[-1] < 0.1 * silu[0]
    assert max(error for (name, _), error in errors.items() if name == "product") < 1e-12


def test_stress_sign_is_positive_under_tension(potential):
    """Energy rises along the strain direction in which the stress is positive."""
    error = testing.stress_error(potential, graph_of(silicon_carbide()), step=1e-3)
    scale = float(predict(potential, graph_of(silicon_carbide())).virial.abs().max()) / 84.0
    print(f"stress error {error:.1e} of {scale:.1e} eV/Å³")
    assert error < 1e-2 * scale


def test_extensivity(potential):
    """Twice the crystal in each direction has eight times the energy and the same forces."""
    small = predict(potential, graph_of(silicon_carbide()))
    large = predict(potential, graph_of(silicon_carbide(repeat=2)))
    energy = abs(float(large.energy / 8 - small.energy)) / 8
    forces = float((large.forces.view(8, -1, 3) - small.forces).abs().max())
    virial = float((large.virial / 8 - small.virial).abs().max()) / 8
    print(f"energy {energy:.1e} eV/atom, forces {forces:.1e} eV/Å, virial {virial:.1e} eV/atom")
    limit = 1e-11 if is_double(potential) else 1e-4
    assert max(energy, forces, virial) < limit


def test_batch_equals_single(potential):
    slab = fcc111("Si", (1, 1, 3), a=4.6, vacuum=5.0)
    methane_like = molecule("CH4")[[0]]
    silane = molecule("Si2H6")[[0, 1]]
    graphs = [graph_of(a) for a in (silicon_carbide(), slab, methane_like, silane)]
    energy, forces = testing.batching_error(potential, graphs)
    print(f"energy {energy:.1e} eV/atom, forces {forces:.1e} eV/Å")
    assert max(energy, forces) < (1e-11 if is_double(potential) else 1e-4)


def test_smooth_at_the_cutoff(potentials):
    """Energy, force and force constant of a dimer vanish at the cutoff."""
    for pair in [(0, 0), (0, 1), (1, 1)]:
        energy, force, curvature = testing.cutoff_jumps(potentials[1][torch.float64], pair)
        print(f"{pair}: {energy:.1e} eV, {force:.1e} eV/Å, {curvature:.1e} eV/Å²")
        assert energy < 1e-8
        assert force < 1e-4
        assert curvature < 0.2


def test_forces_do_not_explode_in_a_denser_cell(potentials):
    """The graph is that of shorter distances with the same neighbours, without new ones."""
    growth = testing.compression_growth(potentials[1][torch.float64], graph_of(silicon_carbide()))
    print(f"forces at 0.9 of the lengths: {growth:.1f} times those before")
    assert growth < potentials[0].growth


@pytest.mark.parametrize("species", [0, 1])
def test_isolated_atom(potential, species):
    """The energy of an atom alone is a constant near E0 and nothing pulls at it."""
    alone = predict(potential, testing.isolated_atom(species))
    e0 = [-155.0, -108.0][species]
    assert abs(float(alone.energy) - e0) < 5.0
    assert float(alone.forces.abs().max()) == 0
    assert float(alone.virial.abs().max()) == 0
    far = predict(potential, testing.dimer(species, species, CUTOFF + 0.01))
    assert abs(float(far.energy) - 2 * float(alone.energy)) < (
        1e-11 if is_double(potential) else 1e-4
    )


def test_float32_agrees_with_float64(potentials):
    single, double = (predict(potentials[1][d], graph_of(silicon_carbide())) for d in DTYPES)
    energy = abs(float(single.energy - double.energy)) / 8
    forces = float((single.forces - double.forces).abs().max())
    scale = float(double.forces.abs().max())
    print(f"energy {energy:.1e} eV/atom, forces {forces:.1e} of {scale:.1f} eV/Å")
    assert energy < 1e-4
    assert forces < 1e-4 * max(scale, 1.0)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_equals_eager(potential):
    graph = graph_of(silicon_carbide())
    scripted = torch.jit.script(potential)
    scripted.cutoff = potential.cutoff
    for atoms in (graph, graph_of(silicon_carbide(repeat=2)), graph):
        eager, script = predict(potential, atoms), predict(scripted, atoms)
        scale = float(eager.forces.abs().max())
        error = float((eager.forces - script.forces).abs().max()) / scale
        print(f"largest relative force difference {error:.1e}")
        assert error < (1e-12 if is_double(potential) else 1e-5)


def test_second_derivatives(potentials):
    """The Hessian is that of differences of forces; in float32 it is that of float64."""
    graph = graph_of(silicon_carbide())
    double = testing.hessian(potentials[1][torch.float64], graph)
    error = testing.hessian_error(potentials[1][torch.float64], graph)
    rounding = float((testing.hessian(potentials[1][torch.float32], graph) - double).abs().max())
    scale = float(double.abs().max())
    print(f"of {scale:.2f} eV/Å²: {error:.1e} from differences, {rounding:.1e} in float32")
    assert error < 1e-7 * max(scale, 1.0)
    assert rounding < 1e-4 * max(scale, 1.0)


def test_forces_can_be_trained_on(potentials):
    """The gradient of a loss of forces and virial is that of finite differences (float64)."""
    potential = potentials[1][torch.float64]
    graph = graph_of(silicon_carbide())
    weights = max(potential.layers[0].parameters(), key=lambda parameter: parameter.numel())

    def loss():
        prediction = predict(potential, graph, create_graph=True)
        return prediction.forces.square().sum() + prediction.virial.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weights)
    direction = torch.randn(weights.shape, dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        weights += step * direction
        up = float(loss().detach())
        weights -= 2 * step * direction
        down = float(loss().detach())
        weights += step * direction
    slope = (up - down) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5)


def test_overlapping_atoms_give_finite_numbers(potential):
    graph = testing.dimer(0, 1, 0.0)
    prediction = predict(potential, graph)
    assert torch.isfinite(prediction.energy).all()
    assert torch.isfinite(prediction.forces).all()


def test_inputs_are_left_unchanged(potential):
    graph = graph_of(silicon_carbide())
    before = [tensor.clone() for tensor in graph]
    predict(potential, graph)
    assert all(torch.equal(a, b) for a, b in zip(graph, before, strict=True))


def test_forces_without_edges_are_zero():
    energies = torch.ones(2, dtype=torch.float64, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    vectors = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    forces, virial = forces_and_virial(
        energies, Edges(vectors, none, none), torch.zeros(2, dtype=torch.int64), 1, False
    )
    assert torch.count_nonzero(forces) == 0
    assert torch.count_nonzero(virial) == 0
