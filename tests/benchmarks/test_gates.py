"""Paths and channels that training closes."""

import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from benchmarks.study.gates import close, gates_of, left
from tesseral.data.loading.datamodule import DataConfig
from tesseral.data.store.read import write_store
from tesseral.data.structures import structure_from_atoms
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.training.batches import FitData
from tesseral.training.initial_weights import start

CONFIG = FacetConfig(cutoff=3.5, channels=4, grid_channels=6, l_max=2)


@pytest.fixture
def data(tmp_path):
    structures = []
    for seed in range(6):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        structures.append(structure_from_atoms(atoms))
    write_store(tmp_path / "train.h5", structures)
    made = FitData(DataConfig(train=str(tmp_path / "train.h5")), CONFIG.cutoff)
    made.setup("fit")
    return made


@pytest.fixture
def potential(data):
    torch.manual_seed(0)
    return start(data, CONFIG, None, dtype="float32", ops="auto").potential


@torch.no_grad()
def test_a_gate_is_shrunk_by_its_cost_and_then_stays_closed(potential):
    (gate, _), _ = gates_of(potential)
    before, costs = gate.sizes(), gate.costs
    amount = 0.5 * float((before / costs).median())
    gate.shrink(amount)
    torch.testing.assert_close(gate.sizes(), (before - amount * costs).clamp(min=0.0))
    gate.shrink(1e3)
    assert left([gate]) == (0, len(costs), 0.0)
    assert not gate.weight.any()


def test_training_closes_more_gates_the_stronger_they_are_shrunk(data, potential):
    shares = []
    for shrinkage in (0.0, 0.3, 30.0):
        options = {"shrinkage": shrinkage, "learning_rate": 0.02, "seconds": 1.0}
        closed = close(potential, data.train_dataloader(), 0.1, **options)
        shares.append(left(gates_of(closed)[0])[2])
    print("arithmetic of the paths that is left:", shares)
    assert shares[0] == 1.0 > shares[1] > shares[2] == 0.0
