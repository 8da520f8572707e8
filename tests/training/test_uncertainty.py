"""The metric of the features, and its calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from seeds import reseed

from tesseral.data.graph import Batch
from tesseral.data.loading.datasets import GraphDataset
from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model, save_model
from tesseral.potentials.derivatives import predict
from tesseral.training.display import uncertainty_line
from tesseral.training.fit import fit
from tesseral.training.uncertainty import (
    LIMIT,
    CalibrateConfig,
    Errors,
    calibrate_file,
    calibrated,
    clusters,
    conformal,
    energy_bound,
    energy_calibration_errors,
    metric,
    with_uncertainty,
)


def features_of_two_elements() -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features of very different variances around two means."""
    reseed(0)
    species = torch.arange(4000) % 2
    mixed = torch.randn(4000, 3) @ torch.tensor([[10.0, 1, 0], [0, 1, 0.1], [0, 0, 0.1]])
    return mixed + 100.0 * species.unsqueeze(1), species


def same_errors(features: torch.Tensor) -> torch.Tensor:
    """Errors of atoms that are all as large."""
    return torch.ones(len(features))


def test_distances_of_the_training_set_are_one_on_average():
    features, species = features_of_two_elements()
    distances = metric(features, species, same_errors(features), 2).distances(features, species)
    assert float(distances.square().mean()) == pytest.approx(1.0)


def test_all_directions_count_by_their_variance():
    features, species = features_of_two_elements()
    places = features @ metric(features, species, same_errors(features), 2).factor
    scales = places[species == 0].std(dim=0)[1:]
    torch.testing.assert_close(scales, scales.mean().expand(2), rtol=0.05, atol=0)


def test_distances_are_larger_where_the_model_errs_more():
    features, species = features_of_two_elements()
    errors = torch.where(species == 0, 1.0, 3.0)
    distances = metric(features, species, errors, 2).distances(features, species)
    assert float(distances[species == 1].mean()) > 1.3 * float(distances[species == 0].mean())


def test_atoms_without_labels_have_the_error_of_the_others():
    features, species = features_of_two_elements()
    errors = torch.where(torch.arange(4000) % 4 < 2, 1.0, torch.nan)
    made = metric(features, species, errors, 2)
    torch.testing.assert_close(made.center[:, 0], made.center[0, 0].expand(len(made.center)))


def test_errors_of_no_atoms_are_not_needed():
    features, species = features_of_two_elements()
    made = metric(features, species, torch.full((4000,), torch.nan), 2)
    assert bool(made.center.isfinite().all())


def test_an_element_without_atoms_has_the_mean_of_all():
    features, species = features_of_two_elements()
    made = metric(features, species, same_errors(features), 3)
    torch.testing.assert_close(made.center[-1], features.mean(dim=0) @ made.factor)


def test_each_of_several_groups_has_a_landmark():
    reseed(0)
    places = 50.0 * torch.arange(4).repeat_interleave(100).unsqueeze(1) + torch.randn(400, 2)
    nearest = torch.cdist(places.double(), clusters(places.double(), 16)).min(dim=1).values
    assert float(nearest.max()) < 10.0


def test_few_atoms_share_landmarks():
    reseed(0)
    assert len(clusters(torch.randn(20, 2).double(), 64)) == 2


class Never(GraphDataset):
    """Structures whose atoms are all of the first element."""

    def __getitem__(self, number: int) -> Batch:
        batch = super().__getitem__(number)
        graph = batch.graph._replace(species=torch.zeros_like(batch.graph.species))
        return batch._replace(graph=graph)


def drawn(exponent: float, atoms: int = 4000) -> Errors:
    """Errors that follow a power of the distance, with scatter; 10 atoms in each structure."""
    rng = np.random.default_rng(0)
    distances = np.exp(rng.normal(scale=0.5, size=atoms))
    forces = 0.02 * distances**exponent * rng.chisquare(3, atoms) / 3
    energy = np.abs(rng.normal(size=atoms // 10))
    return Errors(distances, forces, energy, np.arange(atoms) // 10)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_the_power_of_the_errors_is_found(exponent):
    found = calibrated(drawn(exponent), 1.0)
    assert found["exponent"] == pytest.approx(exponent, abs=0.15)
    assert found["forces"] == pytest.approx(0.02, rel=0.1)


def test_the_bound_of_energies_holds_for_nine_of_ten_structures():
    errors = drawn(1.0, 8000)
    sums = np.bincount(errors.structure, 0.02 * np.maximum(errors.distances, 1) ** 2)
    off = np.abs(np.random.default_rng(0).normal(size=len(sums)))
    found = calibrated(errors._replace(energy=sums * off), 1.0)
    assert found["energy"] == pytest.approx(0.8, rel=0.1)  # mean of the lengths of `off`
    assert found["energy_bound"] == pytest.approx(2.06, rel=0.1)


def test_nine_of_ten_new_errors_are_below_the_bound():
    one, other = drawn(1.5), drawn(1.5, 3000)
    found = calibrated(one, 1.0)
    expected = found["forces"] * other.distances ** found["exponent"]
    covered = (other.forces < found["bound"] * expected).mean()
    assert 0.87 < covered < 0.93


def test_a_training_set_that_reaches_further_moves_the_limit():
    near, far = (calibrated(drawn(1.0), furthest=d) for d in (3.0, 30.0))
    assert far["reach"] == near["reach"]
    assert far["stop"] > near["stop"]


def test_simulations_stop_at_a_limit_unless_known_atoms_are_above_it():
    near, far, further = (calibrated(drawn(1.0), furthest=d)["stop"] for d in (3, 30, 300))
    assert near < far == LIMIT < further


def test_the_bound_of_few_values_is_the_largest():
    assert conformal(np.array([1.0, 3.0, 2.0])) == 3.0


def test_nine_of_ten_new_energies_are_below_a_bound_from_few():
    drawn = np.abs(np.random.default_rng(0).normal(size=(2000, 5)))
    covered = [row[4] < energy_bound(row[:4]) for row in drawn]
    assert 0.88 < np.mean(covered) < 0.96


def test_expected_energies_are_compared_by_structure():
    rng = np.random.default_rng(0)
    n_atoms, expected = rng.integers(1, 100, 3000), np.exp(rng.normal(size=3000))
    true = expected * np.abs(rng.normal(size=3000)) * np.sqrt(np.pi / 2)
    true[0] = np.nan
    found = energy_calibration_errors(expected, true, n_atoms, 1.645 * np.sqrt(np.pi / 2))
    assert found["structures"] == 2999
    assert found["ratio"] == pytest.approx(1, abs=0.1)
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found["miscalibration_area"] < 0.02
    assert found["rank_correlation"] > 0.5


def test_energies_that_are_expected_too_small_are_miscalibrated():
    true = np.abs(np.random.default_rng(0).normal(size=1000))
    found = energy_calibration_errors(np.full(1000, 0.1), true, np.ones(1000, dtype=int), None)
    assert found["miscalibration_area"] > 0.3
    assert found["coverage"] is None


def test_too_few_forces_are_refused():
    few = Errors(np.ones(5), np.ones(5), np.ones(1), np.zeros(5, dtype=np.int64))
    with pytest.raises(ValueError, match="forces of 5 atoms"):
        calibrated(few, 1.0)


def test_a_trained_model_knows_its_uncertainty(fit_config, emt_files):
    path = fit(fit_config(max_steps=4)).model
    potential, card = load_model(path)
    assert potential.uncertainty is not None
    assert card.uncertainty["atoms"] > 0
    assert card.uncertainty["stop"] > 0
    assert 1.5 < min(card.uncertainty["closest"]) < 3.5


def test_an_element_that_was_never_seen_is_far_away(fit_config, emt_files):
    potential, card = load_model(fit(fit_config(max_steps=4)).model)
    store = open_store(emt_files[0])
    data = GraphDataset(store, np.arange(len(store)), card.elements, potential.cutoff)
    graph = data[0].graph
    only = [Never(store, data.rows, card.elements, potential.cutoff)] * 2
    potential, card = with_uncertainty(potential, card, *only)
    expected = predict(potential, graph).uncertainty
    assert expected is not None
    assert float(expected[graph.species == 1].min()) > card.uncertainty["stop"]


def test_a_model_without_it_gets_it_from_its_data(fit_config, emt_files, tmp_path):
    path = fit(fit_config(max_steps=4)).model
    potential, card = load_model(path)
    potential.uncertainty = None
    save_model(tmp_path / "old.safetensors", potential, replace(card, uncertainty={}))
    config = CalibrateConfig(
        model=str(tmp_path / "old.safetensors"),
        data=str(emt_files[0]),
        validation=str(emt_files[1]),
        output=str(tmp_path / "new.safetensors"),
    )
    calibrate_file(config)
    again, new = load_model(tmp_path / "new.safetensors")
    assert new.uncertainty["forces"] == pytest.approx(card.uncertainty["forces"], rel=1e-6)
    assert again.uncertainty is not None


@pytest.mark.parametrize("structures", [8, 80])
def test_a_calibration_with_few_structures_is_called_rough(structures):
    rng = np.random.default_rng(0)
    distances, structure = rng.uniform(0.5, 2, 4 * structures), np.repeat(np.arange(structures), 4)
    values = calibrated(Errors(distances, 0.1 * distances, np.ones(structures), structure), 2.0)
    assert ("rough" in uncertainty_line(values)) == (structures == 8)
