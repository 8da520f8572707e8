"""Expected force errors as functions of distances."""

from __future__ import annotations

import pytest
import torch

from tesseral.potentials.blocks.uncertainty import Calibration, Uncertainty, calibration_of


def known(distance_scale: float = 1.0) -> Uncertainty:
    """Two features, two elements with other means."""
    made = Uncertainty(
        2, 2, Calibration(forces=0.1, exponent=2.0, reach=3.0, energy=0.5, bound=2.0)
    )
    made.factor.copy_(distance_scale * torch.eye(2))
    made.center.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    return made


def test_errors_follow_the_power_up_to_the_reach_and_the_distance_beyond():
    away = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [6.0, 0.0]])
    errors = known()(away, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(errors, torch.tensor([0.1, 0.4, 0.9, 1.8]).double())


def test_the_distance_is_that_to_atoms_of_the_same_element():
    same = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    distances = known().distances(same, torch.tensor([0, 1]))
    torch.testing.assert_close(distances, torch.tensor([1.0, 0.0]).double())


def test_the_distance_is_that_to_the_nearest_landmark():
    made = Uncertainty(2, 2, Calibration(1.0, 1.0, 1.0, 1.0, 1.0, landmarks=2))
    made.factor.copy_(torch.eye(2))
    made.center.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0], [9.0, 0.0], [9.0, 1.0]]))
    places = torch.tensor([[1.0, 0.0], [3.0, 0.0], [9.0, 3.0]])
    distances = made.distances(places, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(distances, torch.tensor([1.0, 1.0, 2.0]).double())


def test_errors_of_energies_are_force_errors_times_distances_of_at_least_one():
    away = torch.tensor([[0.5, 0.0], [1.0, 0.0], [2.0, 0.0], [6.0, 0.0]])
    one = known()
    forces = one(away, torch.zeros(4, dtype=torch.int64))
    expected = 0.5 * torch.tensor([0.1 * 1, 0.1 * 1, 0.4 * 2, 1.8 * 6]).double()
    torch.testing.assert_close(one.energy(forces, torch.arange(4), 4), expected)


def test_errors_of_energies_grow_as_the_root_and_then_as_the_number_of_atoms():
    one = known()
    one.calibration = one.calibration._replace(size=10.0)

    def energy(atoms: int) -> float:
        same = torch.full((atoms,), 0.1, dtype=torch.float64)
        return float(one.energy(same, torch.zeros(atoms, dtype=torch.int64), 1))

    assert energy(10) == pytest.approx(10 * 0.5 * 0.1)
    assert energy(4) / energy(1) == pytest.approx(2, rel=0.2)
    assert energy(4000) / energy(1000) == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("value", [None, -1.0, float("inf"), "1"])
def test_a_number_that_cannot_be_used_is_named(value):
    with pytest.raises(ValueError, match="reach of the uncertainty"):
        calibration_of(
            {"forces": 0.1, "exponent": 1.0, "reach": value, "energy": 1.0, "bound": 2.0}
        )


@pytest.mark.parametrize("value", [1.5, 100_000, True])
def test_a_number_of_landmarks_that_cannot_be_used_is_named(value):
    numbers = {"forces": 0.1, "exponent": 1.0, "reach": 1.0, "energy": 1.0, "bound": 2.0}
    with pytest.raises(ValueError, match="landmarks of the uncertainty"):
        calibration_of({**numbers, "landmarks": value})


def test_a_calibration_from_before_there_were_several_has_one_landmark():
    numbers = {"forces": 0.1, "exponent": 1.0, "reach": 1.0, "energy": 1.0, "bound": 2.0}
    assert calibration_of(numbers).landmarks == 1
