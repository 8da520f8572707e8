"""Hashes of blocks and of the whole: what they notice, and what is said about it."""

import re
import shutil
from collections import Counter

import h5py
import numpy as np
import pytest

from tesseral.data.store.read import open_store, write_store
from tesseral.data.store.verify import verify_store


@pytest.fixture(scope="module")
def store_of_1000(tmp_path_factory, make_structures):
    path = tmp_path_factory.mktemp("verify") / "a.h5"
    write_store(path, make_structures(1000))
    return path


@pytest.fixture
def copy(store_of_1000, tmp_path):
    return shutil.copy(store_of_1000, tmp_path / "a.h5")


def test_what_was_written_is_accepted(copy):
    seen = []
    verify_store(open_store(copy), lambda *state: seen.append(state))
    assert seen == [(256, 1000), (512, 1000), (768, 1000), (1000, 1000)]


@pytest.mark.parametrize(
    "name, row, place",
    [
        ("energy", 0, "0 to 255"),
        ("forces", 4 * 600, "512 to 767"),
        ("stress", 999, "768 to 999"),
        ("texts/group_index", 300, "256 to 511"),
    ],
)
def test_changed_data_are_located(copy, name, row, place):
    with h5py.File(copy, "r+") as file:
        file[name][row] += 1
    with pytest.raises(ValueError, match=f"match their content hash: structures {place} have been"):
        verify_store(open_store(copy))


def test_a_flipped_byte_is_located(copy):
    with h5py.File(copy) as file:
        chunk = file["positions"].id.get_chunk_info(2)  # atoms 2048 to 3071
    data = bytearray(copy.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    copy.write_bytes(data)
    with pytest.raises(ValueError, match="structures 512 to 767 have been"):
        verify_store(open_store(copy))
    with pytest.raises(ValueError, match="is damaged: structures .* cannot be read"):
        open_store(copy)[520]
    assert open_store(copy)[0].energy == open_store(copy).energies[0]


def test_a_wrong_block_hash_is_noticed(copy):
    with h5py.File(copy, "r+") as file:
        file["block_hashes"][1, 3] ^= 1
    with pytest.raises(ValueError, match="structures 256 to 511"):
        verify_store(open_store(copy))


def test_offsets_that_do_not_fit_are_noticed(copy):
    with h5py.File(copy, "r+") as file:
        file["offsets"][400] += 1
    with pytest.raises(ValueError, match="structures 256 to 511"):
        verify_store(open_store(copy))


def test_files_without_block_hashes_are_read_and_verified(copy):
    with h5py.File(copy, "r+") as file:
        del file["block_hashes"]
    verify_store(open_store(copy))
    with h5py.File(copy, "r+") as file:
        file["energy"][700] += 1.0
    with pytest.raises(ValueError, match="content hash: the file has been changed or damaged"):
        verify_store(open_store(copy))


def test_no_flipped_byte_goes_unnoticed(tmp_path, make_structures):
    path = tmp_path / "a.h5"
    write_store(path, make_structures(30), attributes={"theory": "PBE"})
    good = path.read_bytes()
    said = Counter()
    for place in np.random.default_rng(0).choice(len(good), 400, replace=False):
        data = bytearray(good)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(data)
        try:
            store = open_store(path)
            verify_store(store)
        except ValueError as error:
            assert re.search("damaged|not an HDF5 file|newer|version", str(error)), error
            said["damaged"] += 1
        else:  # unused space of the file
            said["unused"] += 1
            assert store.attributes == {"theory": "PBE"}
            assert store.elements == (6, 14)
    print(said)
    assert said["damaged"] > 50
