"""Errors against plain numpy, with missing labels and kinds of structures."""

import numpy as np
import pytest
import torch

from tesseral.data.graph import Labels
from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.store.read import open_store
from tesseral.data.units import EV_PER_A3_IN_GPA
from tesseral.potentials.derivatives import Prediction
from tesseral.training.metrics import ErrorSums


@pytest.fixture
def batch(emt_files):
    """The first training structures as one batch; one has no forces, one no energy."""
    store = open_store(emt_files[0])
    (batch,) = evaluation_loader(store, store.elements, 3.6)
    batch.labels.energy[0] = torch.nan
    batch.labels.forces[4:8] = torch.nan
    return batch


@pytest.fixture
def prediction(batch):
    random = torch.Generator().manual_seed(0)
    n, g = len(batch.graph.positions), len(batch.index)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return Prediction(normal(g), normal(n), normal(n, 3), normal(g, 3, 3))


def summary(batch, prediction, *types):
    sums = ErrorSums((13, 29), *types)
    sums.add(batch, prediction)
    return sums.summary()


def mae_rmse(error, factor):
    error = np.asarray(error)
    error = factor * error[np.isfinite(error)]
    return pytest.approx({"mae": np.abs(error).mean(), "rmse": np.sqrt((error**2).mean())})


def test_energy_is_per_atom_in_mev(batch, prediction):
    off = (prediction.energy - batch.labels.energy) / 4
    assert summary(batch, prediction)["energy_per_atom"] == mae_rmse(off, 1e3)


def test_forces_are_over_components_in_mev_per_angstrom(batch, prediction):
    off = prediction.forces - batch.labels.forces
    assert summary(batch, prediction)["forces"] == mae_rmse(off, 1e3)


def test_stress_is_over_six_components_in_gpa(batch, prediction):
    volume = np.abs(np.linalg.det(batch.graph.cell.numpy()))[:, None, None]
    off = -prediction.virial.numpy() / volume - batch.labels.stress.numpy()
    six = off[(slice(None), *np.triu_indices(3))]
    assert summary(batch, prediction)["stress"] == mae_rmse(six, EV_PER_A3_IN_GPA)


def test_forces_by_element(batch, prediction):
    off = (prediction.forces - batch.labels.forces).numpy()
    by_element = summary(batch, prediction)["by_element"]
    for index, symbol in enumerate(("Al", "Cu")):
        rows = batch.graph.species.numpy() == index
        assert by_element[symbol]["forces"] == mae_rmse(off[rows], 1e3)


def test_errors_by_config_type(batch, prediction):
    kinds = torch.arange(len(batch.index)) % 2
    found = summary(batch, prediction, ("even", "odd"), kinds)["by_config_type"]
    off = (prediction.energy - batch.labels.energy) / 4
    assert found["odd"]["energy_per_atom"] == mae_rmse(off[1::2], 1e3)
    assert found["even"]["n_structures"] == (len(kinds) + 1) // 2


def test_several_batches_give_what_one_gives(batch, prediction):
    sums = ErrorSums((13, 29))
    sums.add(batch, prediction)
    sums.add(batch, prediction)
    twice = sums.summary()
    assert twice["forces"] == pytest.approx(summary(batch, prediction)["forces"])
    assert twice["n_atoms"] == 2 * len(batch.graph.positions)


@pytest.mark.parametrize("name", ["energy_per_atom", "forces", "stress"])
def test_a_label_that_is_nowhere_is_not_reported(batch, prediction, name):
    field = {"energy_per_atom": "energy"}.get(name, name)
    part = torch.full_like(getattr(batch.labels, field), torch.nan)
    bare = batch._replace(labels=batch.labels._replace(**{field: part}))
    assert name not in summary(bare, prediction)


def test_structures_without_labels_are_not_counted(batch, prediction):
    bare = Labels(*(torch.full_like(part, torch.nan) for part in batch.labels))
    assert summary(batch._replace(labels=bare), prediction)["n_structures"] == 0
