"""Broken symmetry is learned from a field: its axis, its size; and none where there is no field.

Energies are those of springs (Morse) plus charges q_i in a field E along a fixed direction,
-Σ q_i E·(r_i - r_0), r_0 the centre of mass, which does not matter for neutral molecules. An ion
would feel a net force, which no potential of relative positions can give; seen from its centre of
mass, which the field accelerates, it is gone, and the forces q_i E - (m_i / M) Q E are left.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tesseral.commands.main import main
from tesseral.commands.symmetry import SymmetryConfig, symmetry, symmetry_sentence
from tesseral.data.graph import join_graphs
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.neighbors import atomic_graph
from tesseral.data.store.read import write_store
from tesseral.data.structures import make_structure
from tesseral.deploy.modelfile import build_potential, load_model, read_card, save_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.blocks.sphere import degree_slice
from tesseral.potentials.symmetry import broken_weights
from tesseral.potentials.testing import rotation_errors
from tesseral.training.config import FitConfig, LossConfig, TrainerConfig
from tesseral.training.fit import fit
from tesseral.training.relaxed import Relaxation

DIRECTION = np.array([0.48, -0.64, 0.6])
RELAXED = FacetConfig(cutoff=3.6, layers=1, channels=4, grid_channels=4, l_max=1, relaxed=True)
MASSES = {1: 1.0, 8: 16.0}
MOLECULES = [  # numbers, positions in Å, charges
    ([8, 1, 1], [[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]], [-0.8, 0.4, 0.4]),
    ([8, 1], [[0, 0, 0], [0.97, 0, 0]], [-1.2, 0.2]),  # an ion
]


def structures(number, field, seed):
    """Molecules shaken by 0.06 Å, in random orientations, in a field of so many V/Å."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(number):
        numbers, places, charges = MOLECULES[k % 2]
        rest, charge = torch.tensor(places, dtype=torch.float64), torch.tensor(charges).double()
        mass = torch.tensor([MASSES[z] for z in numbers], dtype=torch.float64)
        rotation = torch.from_numpy(Rotation.random(random_state=rng).as_matrix())
        shaken = (rest + 0.06 * torch.from_numpy(rng.normal(size=rest.shape))) @ rotation.T
        positions = shaken.requires_grad_(True)
        first, second = torch.triu_indices(len(numbers), len(numbers), 1)
        stretch = (positions[first] - positions[second]).norm(dim=1)
        stretch = stretch - (rest[first] - rest[second]).norm(dim=1)
        centre = (mass / mass.sum()) @ positions
        dipole = charge @ (positions - centre)
        energy = (1 - torch.exp(-1.5 * stretch)).square().sum() - field * dipole @ torch.from_numpy(
            DIRECTION
        )
        (slope,) = torch.autograd.grad(energy, positions)
        made.append(
            make_structure(
                numbers,
                positions.detach().numpy(),
                energy=float(energy.detach()),
                forces=-slope.numpy(),
            )
        )
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains on molecules in a field; gives the model file and the validation errors."""

    def train(field, relaxed=True):
        folder = tmp_path_factory.mktemp("field")
        write_store(folder / "train.h5", structures(450, field, seed=0))
        write_store(folder / "validation.h5", structures(60, field, seed=1))
        config = FitConfig(
            data=DataConfig(
                train=str(folder / "train.h5"),
                validation=str(folder / "validation.h5"),
                batch_structures=30,
            ),
            model=FacetConfig(
                cutoff=4.0, layers=2, channels=8, grid_channels=16, l_max=2, relaxed=relaxed
            ),
            loss=LossConfig(stress_weight=0.0),
            trainer=TrainerConfig(max_steps=250, accelerator="cpu", enable_progress_bar=False),
            output=str(folder / "model.safetensors"),
        )
        result = fit(config)
        errors = result.best["errors"]["forces"]
        print(f"field {field:g} V/Å, relaxed {relaxed}: forces MAE {errors['mae']:.3g} meV/Å")
        return result.model, errors

    return train


def sizes_of(model):
    """RMS of the coefficients of each degree against the RMS of the potential's other weights."""
    potential, _ = load_model(model)
    weights = torch.cat(broken_weights(potential)).detach()
    others = [
        value.flatten() for name, value in potential.named_parameters() if "broken" not in name
    ]
    scale = float(torch.cat(others).detach().square().mean().sqrt())
    padded = torch.nn.functional.pad(weights, (0, 0, 1, 0))
    parts = [padded[:, :, degree_slice(degree)] for degree in (1, 2)]
    return [float(part.square().mean().sqrt()) / scale for part in parts]


def effect_of(model, molecules):
    """RMS change of the forces of molecules when they are turned at random, eV/Å."""
    potential, card = load_model(model)
    graphs = [
        atomic_graph(m.numbers, m.positions, np.zeros((3, 3)), np.zeros(3, bool), card.elements, 4)
        for m in molecules
    ]
    return rotation_errors(potential, join_graphs(graphs), number=20)[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the compositions of the training set")
def test_a_field_is_found_and_none_is_invented(trained):
    """Axis within 1°, an effect that grows with the field, 5 times lower errors; else nothing.

    The effect is the change of forces when a molecule is turned, RMS. The coefficients themselves
    need not grow: the matrices that read them may.
    """
    effects = [0.0]
    for field in (0.0, 0.05, 0.1, 0.2):
        model, errors = trained(field)
        found = symmetry(SymmetryConfig(model=str(model)))
        size = sizes_of(model)
        print(f"  sizes {size}; {symmetry_sentence(found)}")
        if field == 0:
            assert max(size) < 1e-3
            assert found["point_group"]["name"] == "O(3)"
            continue
        effects.append(effect_of(model, structures(20, field, seed=2)))
        print(f"  turning changes forces by {1000 * effects[-1]:.1f} meV/Å")
        assert effects[-1] > 1.5 * effects[-2]
        assert size[0] > 0.01
        assert found["point_group"]["name"] == "C∞v"
        axis = found["point_group"]["axis"]
        off = np.degrees(np.arccos(min(1.0, abs(np.dot(axis, DIRECTION)))))
        print(f"  axis {off:.2f}° off the field")
        assert off < 1.0
        if field == 0.1:
            strict = trained(field, relaxed=False)[1]
            assert errors["mae"] < 0.2 * strict["mae"]


def broken():
    return torch.nn.Parameter(torch.zeros(1, 2, 8, 4, dtype=torch.float64))


def test_only_gradients_that_agree_break_a_symmetry():
    """One degree is pushed by noise, the other one by noise and a direction."""
    torch.manual_seed(0)
    weight = broken()
    steps = Relaxation([weight], 0.4)
    pull = torch.zeros_like(weight)
    pull[:, :, 0] = 1.0
    for _ in range(300):
        weight.grad = torch.randn_like(weight) + pull
        steps.step(1e-2)
        assert weight.grad is None
    learned = weight.detach()
    pushed, noise = float(learned[:, :, 0].mean()), float(learned[:, :, 3:].abs().max())
    print(f"pushed component {pushed:.2f}, largest of the noisy degree {noise:.1e}")
    assert noise == 0
    assert pushed < -0.1


def test_broken_components_vanish_when_their_cause_does():
    torch.manual_seed(0)
    weight = broken()
    torch.nn.init.normal_(weight, std=0.1)
    steps = Relaxation([weight], 0.4)
    for _ in range(150):
        weight.grad = torch.randn_like(weight)
        steps.step(1e-2)
    assert float(weight.detach().abs().max()) == 0


def test_steps_turn_with_the_gradients():
    """A turned field breaks the turned components: no direction of space is preferred."""
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    gradients = torch.randn(80, 1, 2, 8, 4, dtype=torch.float64) + 1.0
    results = []
    for matrix in (torch.eye(3, dtype=torch.float64), rotation):
        turn = torch.block_diag(matrix, torch.eye(5, dtype=torch.float64))
        weight = broken()
        steps = Relaxation([weight], 0.4)
        for gradient in gradients:
            weight.grad = turn @ gradient
            steps.step(1e-2)
        results.append(turn.mT @ weight.detach())
    assert float(results[0].abs().max()) > 0.01
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_both_optimisers_leave_broken_components_to_their_own_step(fit_config, optimizer):
    settings = {"optimizer": optimizer, "relaxed_learning_rate": 1e-4, "relaxed_weight_decay": 0.0}
    config = fit_config(max_steps=8, model=RELAXED, optimization=settings)
    fit(config)
    last = torch.load(config.run_directory / "last.ckpt", weights_only=True)["state_dict"]
    size = float(last["potential.layers.0.broken"].square().mean().sqrt())
    print(f"RMS after 8 steps at a learning rate of at most 1e-4: {size:.1e}")
    assert 0 < size <= 8e-4


@pytest.fixture
def arrows(tmp_path, small_model):
    """A relaxed model file whose learned functions all point along the field."""
    card = read_card(small_model)
    card = replace(card, config=replace(card.config, relaxed=True))
    potential = build_potential(card)
    with torch.no_grad():
        for weight in broken_weights(potential):
            weight[:, :, :3] = 0.1 * torch.from_numpy(DIRECTION).float().unsqueeze(1)
    save_model(tmp_path / "arrows.safetensors", potential, card)
    return tmp_path / "arrows.safetensors"


def test_the_command_writes_json_and_a_picture(arrows, tmp_path, capsys):
    files = ["--json", str(tmp_path / "a" / "s.json"), "--plot", str(tmp_path / "a" / "s.png")]
    assert main(["symmetry", str(arrows), *files]) == 0
    text = capsys.readouterr().out
    assert "broken components of" in text and "C∞v around" in text
    written = json.loads((tmp_path / "a" / "s.json").read_text())
    first = written["components"][0]
    assert written["relaxed"] and (first["layer"], first["degree"]) == (1, 1)
    # A potential that was never calibrated takes its fields to have size 0.75.
    assert first["size"] == pytest.approx(0.1 / 3**0.5 / 0.75, rel=1e-5)
    assert first["axis"] == pytest.approx(list(-DIRECTION), abs=1e-6)
    assert (tmp_path / "a" / "s.png").stat().st_size > 10_000


def test_a_strict_model_has_nothing_to_show(small_model, tmp_path, capsys):
    assert main(["symmetry", str(small_model)]) == 0
    assert "O(3), exactly" in capsys.readouterr().out
    on_a_grid = {"relaxed": False, "exact": False}
    assert "to the accuracy of its grid" in symmetry_sentence(on_a_grid)
    assert main(["symmetry", str(small_model), "--plot", str(tmp_path / "s.png")]) == 2
    assert "there is nothing to draw" in capsys.readouterr().err
