import pytest
import torch
from ase.build import bulk

from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.blocks.flat import FlatLinear
from tesseral.potentials.blocks.mixing import DegreeLinear
from tesseral.potentials.calibrate import DAMPING, calibrate
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing


def rattled_graph():
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.2, seed=0)
    return atomic_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (14,), 5.0)


def calibrated(**options):
    torch.manual_seed(0)
    config = make_config(channels=8, **options)
    potential = MessagePassing(config, (14,), reference_energies=[-100.0])
    calibrate(potential, rattled_graph())
    return potential


@pytest.mark.parametrize("options", [{}, {"architecture": "nequip", "layers": 3, "l_max": 4}])
def test_features_have_the_size_of_their_degree(options):
    potential = calibrated(**options)
    sizes = []

    def record(module, inputs):
        scaled = torch.split(inputs[0], module.sizes, dim=1)
        for degree, (part, scale) in enumerate(zip(scaled, module.scale.flatten(), strict=True)):
            size = float((part.square().mean().sqrt() * scale).detach())
            sizes.append(size / DAMPING**degree)

    for module in potential.modules():
        if isinstance(module, (DegreeLinear, FlatLinear)):
            module.register_forward_pre_hook(record)
    predict(potential, rattled_graph())
    print("RMS of scaled inputs, without the damping:", [f"{size:.3f}" for size in sizes])
    assert len(sizes) > 10
    assert all(0.99 < size < 1.01 for size in sizes)


def test_training_starts_at_the_reference_energies():
    prediction = predict(calibrated(), rattled_graph())
    assert prediction.energy.item() == -800.0


def test_calibration_is_saved_with_the_weights():
    potential = calibrated()
    names = [name for name in potential.state_dict() if name.endswith("scale")]
    assert len(names) > 5


def test_the_perfect_crystal_is_no_trap():
    """Degrees that vanish by symmetry get a finite scale."""
    atoms = bulk("Si", cubic=True)
    graph = atomic_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (14,), 5.0)
    potential = MessagePassing(FacetConfig(channels=8), (14,))
    calibrate(potential, graph)
    for name, value in potential.state_dict().items():
        assert torch.isfinite(value).all(), name
