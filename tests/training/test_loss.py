"""The loss: its definition, its gradient, and missing labels."""

import pytest
import torch

from tesseral.data.graph import AtomicGraph, Labels
from tesseral.potentials.derivatives import Prediction
from tesseral.training.config import LossConfig
from tesseral.training.loss import (
    label_counts,
    loss_sums,
    loss_weights,
    residuals,
    weighted_loss,
)

FORCE_RMS = 0.7
NAN = float("nan")


def make(seed=0):
    """Graph, labels, prediction of structures with two and three atoms; the second has no cell."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    cell = torch.stack([4.0 * torch.eye(3).double(), torch.zeros(3, 3).double()])
    graph = AtomicGraph(
        positions=normal(5, 3),
        species=torch.zeros(5, dtype=torch.int64),
        structure=torch.tensor([0, 0, 1, 1, 1]),
        cell=cell,
        senders=torch.zeros(0, dtype=torch.int64),
        receivers=torch.zeros(0, dtype=torch.int64),
        shifts=torch.zeros(0, 3).double(),
    )
    stress = normal(2, 3, 3)
    stress[1] = NAN
    labels = Labels(energy=normal(2), forces=normal(5, 3), stress=stress)
    prediction = Prediction(normal(2), normal(5), normal(5, 3), normal(2, 3, 3))
    return graph, labels, prediction


def loss(graph, labels, prediction, config=None):
    config = LossConfig() if config is None else config
    parts = residuals(prediction, graph, labels, config.stress_target)
    sums = loss_sums(parts, FORCE_RMS, config)
    return weighted_loss(sums, label_counts(labels), loss_weights(config, 0.0))


def only(name, **settings):
    """Weights of 1 for one label and 0 for the others."""
    weights = {f"{other}_weight": float(other == name) for other in ("energy", "forces", "stress")}
    return LossConfig(**weights, **settings)


def test_energy_term_is_the_mean_square_per_atom_over_the_force_rms():
    graph, labels, prediction = make()
    off = (prediction.energy - labels.energy) / torch.tensor([2.0, 3.0]) / FORCE_RMS
    torch.testing.assert_close(loss(*make(), only("energy")), off.square().mean())


def test_forces_term_is_the_mean_over_components():
    _, labels, prediction = make()
    off = (prediction.forces - labels.forces) / FORCE_RMS
    torch.testing.assert_close(loss(*make(), only("forces")), off.square().mean())


def test_virial_term_compares_the_virial_per_atom():
    _, labels, prediction = make()
    off = (prediction.virial[0] + 64.0 * labels.stress[0]) / 2.0 / FORCE_RMS
    torch.testing.assert_close(loss(*make(), only("stress")), off.square().mean())


def test_stress_term_compares_the_stress():
    _, labels, prediction = make()
    off = (-prediction.virial[0] / 64.0 - labels.stress[0]) / FORCE_RMS
    result = loss(*make(), only("stress", stress_target="stress"))
    torch.testing.assert_close(result, off.square().mean())


def test_mae_is_the_mean_absolute_value():
    _, labels, prediction = make()
    off = (prediction.forces - labels.forces).abs().mean() / FORCE_RMS
    torch.testing.assert_close(loss(*make(), only("forces", forces="mae")), off)


@pytest.mark.parametrize(("error", "expected"), [(0.01, 1e-4), (5.0, 2 * 0.1 * (5.0 - 0.05))])
def test_huber_is_the_square_below_delta_and_linear_above(error, expected):
    graph, labels, prediction = make()
    prediction = prediction._replace(forces=labels.forces + error * FORCE_RMS)
    config = only("forces", forces="huber", huber_delta=0.1)
    assert float(loss(graph, labels, prediction, config)) == pytest.approx(expected)


@pytest.mark.parametrize("function", ["mse", "mae", "huber"])
@pytest.mark.parametrize("target", ["virial", "stress"])
def test_missing_labels_leave_loss_and_gradient_finite(function, target):
    graph, labels, prediction = make()
    labels.energy[0] = labels.forces[1, 2] = NAN
    inputs = [part.requires_grad_() for part in prediction[:4]]
    config = LossConfig(energy=function, forces=function, stress=function, stress_target=target)
    loss(graph, labels, prediction, config).backward()
    for part in (inputs[0], inputs[2], inputs[3]):
        assert torch.isfinite(part.grad).all()
    assert inputs[0].grad[0] == 0 and inputs[2].grad[1, 2] == 0 and not inputs[3].grad[1].any()


def test_missing_labels_do_not_count_in_the_mean():
    graph, labels, prediction = make()
    labels.energy[0] = NAN
    off = (prediction.energy[1] - labels.energy[1]) / 3.0 / FORCE_RMS
    torch.testing.assert_close(loss(graph, labels, prediction, only("energy")), off.square())


def test_a_batch_without_any_label_has_loss_zero():
    graph, labels, prediction = make()
    empty = Labels(*(torch.full_like(part, NAN) for part in labels))
    assert float(loss(graph, empty, prediction)) == 0.0


@pytest.mark.parametrize("function", ["mse", "huber"])
def test_the_gradient_agrees_with_finite_differences(function):
    graph, labels, prediction = make()
    labels.forces[1, 2] = NAN
    config = LossConfig(energy=function, forces=function, stress=function, huber_delta=0.5)

    def of_parts(energy, forces, virial):
        return loss(graph, labels, Prediction(energy, prediction[1], forces, virial), config)

    parts = (prediction.energy, prediction.forces, prediction.virial)
    assert torch.autograd.gradcheck(of_parts, [part.requires_grad_() for part in parts])


def test_an_infinite_prediction_is_not_hidden():
    graph, labels, prediction = make()
    prediction.forces[0, 0] = NAN
    assert torch.isnan(loss(graph, labels, prediction))


def test_the_energy_weight_goes_from_first_to_last():
    config = LossConfig(energy_weight=1.0, energy_weight_final=9.0)
    assert [loss_weights(config, p)[0] for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 5.0, 9.0])


def test_the_energy_weight_stays_without_a_final_one():
    config = LossConfig(energy_weight=2.0)
    assert {loss_weights(config, p)[0] for p in (0.0, 0.5, 1.0)} == {2.0}
