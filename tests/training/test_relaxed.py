"""Broken symmetry is learned from a field: its axis, its size; and none where there is no field.

The molecules are those of ``benchmarks.study.field``.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.study.field import joined, structures
from tesseral.commands.main import main
from tesseral.commands.symmetry import SymmetryConfig, symmetry, symmetry_sentence
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.store.read import write_store
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model, read_card, save_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.frames import FramesConfig
from tesseral.potentials.blocks.geometry import random_orthogonal
from tesseral.potentials.blocks.point_groups import invariant_functions
from tesseral.potentials.blocks.sphere import degree_slice
from tesseral.potentials.derivatives import predict
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.symmetry import broken_weights
from tesseral.potentials.testing import orthogonal_errors, rotation_errors
from tesseral.training.config import FitConfig, LossConfig, OptimizationConfig, TrainerConfig
from tesseral.training.fit import fit
from tesseral.training.module import PotentialModule
from tesseral.training.relaxed import Relaxation
from tesseral.training.schedule import Budget

DIRECTION = np.array([0.48, -0.64, 0.6])
RELAXED = FacetConfig(cutoff=3.6, layers=1, channels=4, grid_channels=4, l_max=1, relaxed=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains on molecules in a field; gives the model file and the validation errors."""

    def train(field, relaxed=True):
        folder = tmp_path_factory.mktemp("field")
        write_store(folder / "train.h5", structures(450, field, 0, DIRECTION))
        write_store(folder / "validation.h5", structures(60, field, 1, DIRECTION))
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
    return rotation_errors(load_model(model)[0], joined(molecules), number=20)[1]


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
        effects.append(effect_of(model, structures(20, field, 2, DIRECTION)))
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


def test_proportional_shrinkage_leaves_noise():
    torch.manual_seed(0)
    weight = broken()
    steps = Relaxation([weight], 0.4, threshold=False)
    for _ in range(150):
        weight.grad = torch.randn_like(weight)
        steps.step(1e-2)
    assert float(weight.detach().abs().min()) > 0


@pytest.mark.parametrize("group", [None, "C4v", "O(3)"])
def test_training_stays_within_the_group(fit_config, group):
    """The weights themselves too: without a projection they would be a relaxed potential."""
    model = replace(RELAXED, l_max=2, group=group)
    fit(fit_config(max_steps=8, model=model, optimization={"relaxed_weight_decay": 0.0}))
    potential, _ = load_model(fit_config(model=model).output)
    weights = broken_weights(potential)[0].detach()
    if group == "O(3)":
        assert float(weights.abs().max()) == 0
        return
    assert float(weights.abs().max()) > 0
    if group is not None:
        kept = invariant_functions(group, 2).to(weights.dtype)
        torch.testing.assert_close(kept @ weights, weights, rtol=1e-9, atol=1e-12)


def test_a_penalty_is_the_change_of_forces_by_a_rotation():
    torch.manual_seed(0)
    config = FramesConfig(cutoff=4.0, layers=1, channels=4, group="1")
    potential = MessagePassing(config, (1, 8), mean_neighbors=2.0, dtype=torch.float64)
    graph = joined(structures(4, 0.0, 0))
    options = {"loss": LossConfig(), "optimization": OptimizationConfig(), "force_rms": 2.0}
    module = PotentialModule(potential, budget=Budget(steps=1, seconds=60.0), **options)
    torch.manual_seed(1)
    found = float(module.change(graph, predict(potential, graph, create_graph=True)).detach())
    torch.manual_seed(1)
    change = orthogonal_errors(potential, graph, random_orthogonal().unsqueeze(0))[1]
    assert change > 1e-3
    assert found == pytest.approx((change / 2.0) ** 2, rel=1e-6)


def test_a_penalty_of_rotated_forces_is_trained_on(fit_config):
    model = FramesConfig(cutoff=3.6, layers=1, channels=4, group="1")
    weights = []
    for weight in (0.0, 100.0):
        config = replace(
            fit_config(max_steps=4, model=model), loss=LossConfig(symmetry_weight=weight)
        )
        fit(config)
        last = torch.load(config.run_directory / "last.ckpt", weights_only=True)["state_dict"]
        weights.append(last["potential.embedding"])
    assert float((weights[1] - weights[0]).abs().max()) > 1e-6


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


def test_a_mean_over_a_group_is_named_by_the_command(tmp_path, capsys):
    config = FramesConfig(cutoff=3.6, layers=1, channels=4, group="4mm")
    card = ModelCard(
        config=config,
        elements=(14,),
        reference_energies=(0.0,),
        energy_scale=1.0,
        mean_neighbors=4.0,
        dtype="float32",
    )
    save_model(tmp_path / "mean.safetensors", build_potential(card), card)
    assert main(["symmetry", str(tmp_path / "mean.safetensors")]) == 0
    assert "left: C4v around 0.000 0.000 1.000, 8 operations" in capsys.readouterr().out
