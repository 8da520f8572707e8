"""Streaming from large stores: memory, and the same order whoever reads."""

import tracemalloc

import numpy as np
import pytest

from tesseral.data.loading.datamodule import DataConfig, PotentialDataModule
from tesseral.data.loading.datasets import labelled_graph, memory_size
from tesseral.data.loading.sampler import shuffle
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import make_structure


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """6000 structures of 40 atoms: 12 MB of numbers in 123 segments."""
    path = tmp_path_factory.mktemp("stream") / "many.h5"
    rng = np.random.default_rng(0)
    positions = rng.random((40, 3)) * 9
    write_store(
        path,
        (
            make_structure([14] * 40, positions, energy=float(i), forces=0.1 * positions)
            for i in range(6000)
        ),
    )
    return path


def test_the_memory_of_a_stream_does_not_grow(many, monkeypatch):
    monkeypatch.setattr("tesseral.data.store.read.KEPT_BYTES", 2e6)
    store = open_store(many)
    order = shuffle(store.segments, 0, 0)
    tracemalloc.start()
    peaks = []
    for rows in (order[:1500], order[1500:]):
        for row in rows:
            store[row]
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
    tracemalloc.stop()
    print("MB at most:", peaks)
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < 6  # of 12


def test_windows_of_segments_give_the_same_batches_to_any_number_of_workers(many, monkeypatch):
    monkeypatch.setattr("tesseral.data.loading.sampler.WINDOW", 8)
    orders = []
    for workers in (0, 2):
        config = DataConfig(
            train=str(many), batch_structures=64, batch_edges=10**6, workers=workers, seed=5
        )
        data = PotentialDataModule(config, cutoff=2.0)
        monkeypatch.setattr("tesseral.data.loading.datasets.MAX_COUNTED", 10)
        data.setup()
        batches = zip(range(12), data.train_dataloader(), strict=False)
        orders.append([batch.index.tolist() for _, batch in batches])
    assert orders[0] == orders[1]
    segments = open_store(many).segments
    assert len(set(segments[sum(orders[0][:4], [])])) <= 8


def test_the_cache_counts_all_of_its_memory(many):
    """Of small structures the objects around the numbers take more than the numbers."""
    store = open_store(many)
    structure = store[0]._replace(numbers=np.array([14]), positions=np.zeros((1, 3)))
    structure = structure._replace(forces=np.zeros((1, 3)))
    batch = labelled_graph(structure, (14,), 2.0)
    tracemalloc.start()
    kept = [labelled_graph(structure, (14,), 2.0) for _ in range(100)]
    python = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    print(f"{python:.0f} bytes for Python alone, {memory_size(batch)} counted")
    assert python < memory_size(batch) < 15_000
