import multiprocessing
import pickle
import shutil

import h5py
import numpy as np
import pytest

from tesseral.data.store.format import make_block
from tesseral.data.store.read import SEGMENT, StoreWriter, open_store, write_store
from tesseral.data.structures import Structure, make_structure


def assert_same(first: Structure, second: Structure) -> None:
    for name, a, b in zip(Structure._fields, first, second, strict=True):
        if isinstance(a, str):
            assert a == b, name
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


def energy_in_process(store, index):
    return store[index].energy


def test_round_trip_is_exact(tmp_path, make_structures):
    structures = make_structures(7, n_atoms=3)
    write_store(tmp_path / "a.h5", structures)
    store = open_store(tmp_path / "a.h5")
    assert len(store) == 7
    for written, read in zip(structures, store, strict=True):
        assert_same(written, read)


def test_round_trip_over_many_blocks(tmp_path, make_structures, monkeypatch):
    monkeypatch.setattr("tesseral.data.store.read.SEGMENT", 20)
    monkeypatch.setattr("tesseral.data.store.read.KEPT_BYTES", 3000)
    structures = make_structures(600)
    write_store(tmp_path / "a.h5", structures)
    store = open_store(tmp_path / "a.h5")
    for i in np.random.default_rng(0).integers(0, 600, 200):
        assert_same(store[i], structures[i])
    assert 1 < len(store._kept) <= 10
    for written, read in zip(structures, store, strict=True):
        assert_same(written, read)


def test_structures_are_copies(small_store):
    store = open_store(small_store)
    before = store[3].positions.copy()
    store[3].positions[:] = 0.0
    np.testing.assert_array_equal(store[3].positions, before)


def test_structures_that_are_read_together_are_near_each_other(tmp_path):
    rng = np.random.default_rng(0)
    write_store(
        tmp_path / "a.h5",
        [make_structure([14] * n, rng.random((n, 3))) for n in (*[1] * 1000, 3000, 3000, 50)],
    )
    segments = open_store(tmp_path / "a.h5").segments
    print(segments[[0, 408, 410, 999, 1000, 1001, 1002]])
    assert segments[409] == 0 and segments[410] == 1
    assert len(set(segments[-3:])) == 3


def test_the_same_structures_give_the_same_bytes(tmp_path, make_structures):
    structures = make_structures(700)
    write_store(tmp_path / "a.h5", structures)
    with StoreWriter(tmp_path / "b.h5") as writer:
        writer.append(structures[0])
        writer.extend(make_block(structures[1:400]))
        for structure in structures[400:650]:
            writer.append(structure)
        writer.extend(make_block(structures[650:]))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("change", ["positions", "energy", "config_type", "stress", "pbc"])
def test_hash_sees_every_change(tmp_path, make_structures, change):
    structures = make_structures(3)
    write_store(tmp_path / "a.h5", structures)
    new = {
        "positions": structures[1].positions + 1e-12,
        "energy": 1.0,
        "config_type": "other",
        "stress": np.full((3, 3), np.nan),
        "pbc": np.array([True, True, False]),
    }[change]
    structures[1] = structures[1]._replace(**{change: new})
    write_store(tmp_path / "b.h5", structures)
    assert open_store(tmp_path / "a.h5").content_hash != open_store(tmp_path / "b.h5").content_hash


def test_missing_labels_come_back_as_nan(tmp_path):
    write_store(tmp_path / "a.h5", [make_structure([1], [[0, 0, 0]])])
    structure = open_store(tmp_path / "a.h5")[0]
    assert np.isnan(structure.energy)
    assert np.isnan(structure.forces).all()
    assert np.isnan(structure.stress).all()


def test_describes_itself(small_store):
    store = open_store(small_store)
    assert store.elements == (6, 14)
    assert store.n_atoms.tolist() == [4] * 40
    assert store.attributes == {"theory": "none"}
    assert store.units["forces"] == "eV/Å"
    assert store.texts("group")[:6] == ["group 0"] * 5 + ["group 1"]


def test_compositions_count_elements(small_store):
    store = open_store(small_store)
    expected = [[int((s.numbers == z).sum()) for z in store.elements] for s in store]
    assert store.compositions().tolist() == expected


def test_indices_count_from_either_end(small_store):
    store = open_store(small_store)
    assert_same(store[-1], store[39])
    assert_same(store[np.int64(-40)], store[0])
    for index in (40, -41):
        with pytest.raises(IndexError, match="40 structures"):
            store[index]


def test_pickles_as_its_path(small_store):
    store = open_store(small_store)
    expected = store[3]
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 1000
    assert_same(copy[3], expected)


def test_a_pickled_store_notices_another_file(tmp_path, small_store, make_structures):
    path = tmp_path / "a.h5"
    shutil.copy(small_store, path)
    data = pickle.dumps(open_store(path))
    write_store(path, make_structures(3, seed=5))
    with pytest.raises(ValueError, match="has changed"):
        pickle.loads(data)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_works_in_child_processes(small_store, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    store = open_store(small_store)
    expected = [store[i].energy for i in range(8)]  # opens the file before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(energy_in_process, [(store, i) for i in range(8)])
    assert found == expected
    assert store[0].energy == expected[0]


def test_is_closed_before_a_fork(small_store):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    store = open_store(small_store)
    store[0]
    assert store._file is not None
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start()
    assert store._file is None
    process.join()


def test_large_stores_are_read_in_small_parts(tmp_path, monkeypatch):
    """To open one reads no atoms, and a structure reads one segment of them."""
    count = 100_000
    structures = (
        make_structure([14], [[0.0, 0.0, i]], energy=float(i), forces=[[i, 0, 0]])
        for i in range(count)
    )
    write_store(tmp_path / "a.h5", structures)
    read = []
    original = h5py.Dataset.__getitem__

    def recorded(dataset, *arguments, **options):
        found = original(dataset, *arguments, **options)
        read.append((dataset.name, len(np.atleast_1d(found))))
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", recorded)
    store = open_store(tmp_path / "a.h5")
    assert len(store) == count
    assert not read
    rows = np.random.default_rng(0).integers(0, count, 20)
    assert [store[i].energy for i in rows] == rows.tolist()
    largest = max(length for name, length in read if name in ("/positions", "/forces"))
    print(f"{largest} of {count} atoms at once")
    assert 0 < largest <= SEGMENT


def test_is_written_as_a_stream(tmp_path, make_structures, monkeypatch):
    monkeypatch.setattr("tesseral.data.store.write.HASH_ROWS", 4)
    one = make_structures(1)[0]
    alive = []

    def stream():
        import weakref

        for _ in range(40):
            positions = one.positions.copy()
            alive.append(weakref.ref(positions))
            yield one._replace(positions=positions)
            del positions
            assert sum(reference() is not None for reference in alive) <= 6

    assert write_store(tmp_path / "a.h5", stream()) == 40


def test_reports_progress(tmp_path, make_structures):
    seen = []
    write_store(tmp_path / "a.h5", make_structures(3), progress=seen.append)
    assert seen == [1, 2, 3]


def test_an_error_leaves_nothing_behind_and_the_old_file_alone(tmp_path, make_structures):
    path = tmp_path / "a.h5"
    write_store(path, make_structures(2))
    before = path.read_bytes()

    def broken():
        yield from make_structures(2)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_store(path, broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_to_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="no structures"):
        write_store(tmp_path / "a.h5", [])
    assert not list(tmp_path.iterdir())


def test_refuses_reserved_attributes(tmp_path, make_structures):
    with pytest.raises(ValueError, match="reserved"):
        write_store(tmp_path / "a.h5", make_structures(1), attributes={"units": "nm"})


def test_refuses_a_folder_that_does_not_exist(tmp_path, make_structures):
    with pytest.raises(ValueError, match="does not exist"):
        write_store(tmp_path / "no" / "a.h5", make_structures(1))


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset"):
        open_store(tmp_path / "a.h5")


def test_refuses_a_file_that_is_not_hdf5_and_says_how_to_import_it(tmp_path):
    (tmp_path / "a.extxyz").write_text("2\n\nH 0 0 0\nH 0 0 1\n")
    with pytest.raises(ValueError, match="data import .*a.extxyz -o a.h5"):
        open_store(tmp_path / "a.extxyz")


def test_refuses_a_foreign_hdf5_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["positions"] = np.zeros(3)
    with pytest.raises(ValueError, match="not a tesseral dataset"):
        open_store(tmp_path / "a.h5")


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_refuses_a_truncated_file(tmp_path, small_store, fraction):
    data = small_store.read_bytes()
    (tmp_path / "a.h5").write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(ValueError, match="truncated or damaged"):
        open_store(tmp_path / "a.h5")


def test_refuses_a_newer_format(tmp_path, small_store):
    shutil.copy(small_store, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(ValueError, match="version 99.*upgrade"):
        open_store(tmp_path / "a.h5")


def test_notices_damaged_bytes(tmp_path, make_structures):
    path = tmp_path / "a.h5"
    write_store(path, make_structures(300))
    with h5py.File(path) as file:
        chunk = file["positions"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        open_store(path)[0]
