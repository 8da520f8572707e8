import dataclasses
import multiprocessing
import pickle

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tesseral.data.graph import Batch
from tesseral.data.loading import datasets
from tesseral.data.loading.datamodule import DataConfig, PotentialDataModule, evaluation_loader
from tesseral.data.loading.datasets import GraphDataset, labelled_graph
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import make_structure

CUTOFF = 3.0


def module(path, **changes):
    data = PotentialDataModule(
        DataConfig(**{"train": str(path), "batch_structures": 4, **changes}), cutoff=CUTOFF
    )
    data.setup()
    return data


def rows(loader):
    return [batch.index.tolist() for batch in loader]


def assert_same(first: Batch, second: Batch) -> None:
    for a, b in zip(
        (*first.graph, *first.labels, first.index),
        (*second.graph, *second.labels, second.index),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_a_batch_is_what_the_store_holds(small_store):
    data = module(small_store)
    store = open_store(small_store)
    batch = next(iter(data.train_dataloader()))
    for place, row in enumerate(batch.index.tolist()):
        atoms = batch.graph.structure == place
        structure = store[row]
        np.testing.assert_array_equal(batch.graph.positions[atoms].numpy(), structure.positions)
        elements = torch.tensor(data.statistics.elements)[batch.graph.species[atoms]]
        assert elements.tolist() == structure.numbers.tolist()
        np.testing.assert_array_equal(batch.labels.forces[atoms].numpy(), structure.forces)
        assert batch.labels.energy[place] == structure.energy
        np.testing.assert_array_equal(batch.labels.stress[place].numpy(), structure.stress)


def test_dtypes_are_those_of_the_graph_contract(small_store):
    batch = next(iter(module(small_store).train_dataloader()))
    graph, labels = batch.graph, batch.labels
    for tensor in (graph.positions, graph.cell, graph.shifts, *labels):
        assert tensor.dtype == torch.float64
    for tensor in (graph.species, graph.structure, graph.senders, graph.receivers, batch.index):
        assert tensor.dtype == torch.int64
    assert (torch.diff(graph.receivers) >= 0).all()


def test_training_and_validation_are_disjoint_and_complete(small_store):
    data = module(small_store)
    train = sum(rows(data.train_dataloader()), [])
    validation = sum(rows(data.val_dataloader()), [])
    assert sorted(train + validation) == list(range(40))
    assert len(validation) == 4


def test_a_validation_file_is_used_whole(small_store, tmp_path, make_structures):
    write_store(tmp_path / "v.h5", make_structures(7, seed=1))
    data = module(small_store, validation=str(tmp_path / "v.h5"))
    assert len(sum(rows(data.train_dataloader()), [])) == 40
    assert sum(rows(data.val_dataloader()), []) == list(range(7))
    assert data.summary()["split"] == "file"


def test_an_element_only_in_the_validation_file_is_named(small_store, tmp_path):
    write_store(tmp_path / "v.h5", [make_structure([8], [[0, 0, 0]])])
    with pytest.raises(ValueError, match="has O, which the training set does not have"):
        module(small_store, validation=str(tmp_path / "v.h5"))


def test_statistics_are_of_the_training_part(small_store):
    data = module(small_store, validation_fraction=0.25)
    assert data.statistics.n_structures == 30
    assert data.statistics.n_atoms == 120


def test_statistics_need_setup(small_store):
    with pytest.raises(RuntimeError, match="setup"):
        _ = PotentialDataModule(DataConfig(train=str(small_store)), cutoff=3.0).statistics


def test_given_reference_energies_are_used(small_store):
    data = module(small_store, isolated_energies={"C": -1.0, "Si": -2.0})
    assert data.statistics.reference_energies == (-1.0, -2.0)


def test_limits_of_batches(small_store):
    data = module(small_store, batch_structures=5, batch_edges=300)
    for batch in data.train_dataloader():
        assert len(batch.index) <= 5
        assert len(batch.graph.senders) <= 300 or len(batch.index) == 1


def test_workers_give_the_same_batches(small_store):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    alone, helped = (module(small_store, workers=workers) for workers in (0, 2))
    loaders = alone.train_dataloader(), helped.train_dataloader()
    for epoch in range(2):
        for loader in loaders:
            loader.batch_sampler.set_epoch(epoch)
        for first, second in zip(*loaders, strict=True):
            assert_same(first, second)


def test_datasets_pickle_without_their_cache(small_store):
    data = module(small_store)
    assert data.train_dataset._cache
    copy = pickle.loads(pickle.dumps(data.train_dataset))
    assert not copy._cache
    assert_same(copy[3], data.train_dataset[3])


def test_graphs_are_built_once(small_store, monkeypatch):
    data = module(small_store)
    list(data.val_dataloader())

    def fail(*arguments):
        raise AssertionError("the neighbour list was built again")

    monkeypatch.setattr("tesseral.data.loading.datasets.labelled_graph", fail)
    list(data.train_dataloader())
    list(data.val_dataloader())


def test_the_cache_keeps_its_limit(small_store):
    store = open_store(small_store)
    dataset = GraphDataset(store, np.arange(40), store.elements, CUTOFF, cache_bytes=150_000)
    dataset.edge_counts()
    assert 0 < len(dataset._cache) < 40
    assert dataset._used <= 150_000
    assert_same(dataset[39], labelled_graph(store[39], store.elements, CUTOFF, 39))


def test_edges_of_large_sets_are_estimated_on_the_high_side(small_store, monkeypatch):
    store = open_store(small_store)
    dataset = GraphDataset(store, np.arange(40), store.elements, CUTOFF)
    exact = dataset.edge_counts()
    monkeypatch.setattr("tesseral.data.loading.datasets.MAX_COUNTED", 10)
    estimated = dataset.edge_counts()
    assert np.mean(exact <= estimated) >= 0.85
    assert estimated.mean() < 2 * exact.mean()


def test_a_bad_structure_is_named(tmp_path, make_structures):
    write_store(tmp_path / "a.h5", make_structures(3))
    dataset = GraphDataset(open_store(tmp_path / "a.h5"), np.arange(3), (6,), CUTOFF)
    with pytest.raises(ValueError, match="structure 2 of .*a.h5: element Si"):
        dataset[2]


def test_repeats_have_no_labels_in_validation(small_store):
    data = module(small_store)
    train, validation = data.train_dataset, data.validation_dataset
    assert torch.equal(train[-1].labels.forces, train[0].labels.forces)
    repeat = validation[-1]
    assert all(part.isnan().all() for part in repeat.labels)
    assert torch.equal(repeat.graph.positions, validation[0].graph.positions)
    assert not validation[0].labels.forces.isnan().any()


def test_batches_are_independent_of_the_cache(small_store):
    data = module(small_store, batch_structures=1)
    loader = data.train_dataloader()
    first = next(iter(loader))
    first.graph.positions.zero_()
    assert next(iter(loader)).graph.positions.abs().sum() > 0


def test_evaluation_goes_through_the_store_in_order(small_store):
    store = open_store(small_store)
    loader = evaluation_loader(store, store.elements, CUTOFF, batch_edges=500)
    batches = list(loader)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(40))
    assert all(len(batch.graph.senders) <= 500 for batch in batches)
    assert loader.n_structures == 40
    assert len(list(loader)) == len(batches) > 1


def test_evaluation_refuses_unknown_elements(small_store):
    with pytest.raises(ValueError, match="Si"):
        evaluation_loader(open_store(small_store), (6,), CUTOFF)


def test_summary_names_files_and_hashes(small_store):
    summary = module(small_store).summary()
    assert summary["train"]["file"] == "small.h5"
    assert summary["train"]["content_hash"] == open_store(small_store).content_hash
    assert summary["train"]["structures"] == 36
    assert summary["validation"]["structures"] == 4
    assert summary["elements"] == ["C", "Si"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"split": "magic"},
        {"batch_structures": 0},
        {"batch_edges": 0},
        {"workers": -1},
        {"cache_gigabytes": -1.0},
    ],
)
def test_refuses_wrong_values(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DataConfig(train="a.h5", **wrong)


def test_the_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DataConfig(train="a.h5").seed = 1


def test_later_epochs_take_the_graphs_from_memory(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3) * 2.7
    structures = [
        make_structure(
            [14] * 64,
            grid + 0.1 * rng.normal(size=(64, 3)),
            cell=10.8 * np.eye(3),
            energy=0.0,
            forces=rng.normal(size=(64, 3)),
        )
        for _ in range(60)
    ]
    write_store(tmp_path / "a.h5", structures)
    data = PotentialDataModule(DataConfig(train=str(tmp_path / "a.h5")), cutoff=5.0)
    data.setup()
    loader = data.train_dataloader()
    list(loader)
    monkeypatch.setattr(datasets, "labelled_graph", None)  # nothing is computed again
    assert len(list(loader)) > 0


class Recorder(lightning.LightningModule):
    """Remembers the rows that it was trained on."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, number):
        self.seen.append((self.current_epoch, batch.index.tolist()))
        return self.weight.sum()

    def validation_step(self, batch, number):
        assert isinstance(batch, Batch)

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1)


def fit(data, checkpoint=None, callbacks=()):
    recorder = Recorder()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
    )
    trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint)
    return recorder.seen


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec")
class TestWithLightning:
    def test_every_epoch_has_its_own_order(self, small_store):
        seen = fit(module(small_store))
        first, second = (sum((rows for epoch, rows in seen if epoch == n), []) for n in (0, 1))
        assert sorted(first) == sorted(second)
        assert first != second

    @pytest.mark.parametrize("steps", [4, 9, 13])
    def test_goes_on_within_an_epoch(self, small_store, tmp_path, steps):
        def keep():
            return ModelCheckpoint(
                tmp_path, filename="{step}", every_n_train_steps=steps, save_top_k=-1
            )

        whole = fit(module(small_store), callbacks=[keep()])
        assert len(whole) == 18
        rest = fit(
            module(small_store), checkpoint=tmp_path / f"step={steps}.ckpt", callbacks=[keep()]
        )
        assert rest == whole[steps:]
