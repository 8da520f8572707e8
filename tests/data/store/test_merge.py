"""Merging and appending: the content, the bytes, what is refused."""

import h5py
import pytest

from tesseral.data.store.merge import merge_stores
from tesseral.data.store.read import open_store, write_store
from tesseral.data.store.verify import verify_store


@pytest.fixture
def parts(tmp_path, make_structures):
    structures = make_structures(700)
    write_store(tmp_path / "a.h5", structures[:300], attributes={"theory": "PBE", "source": "x"})
    write_store(tmp_path / "b.h5", structures[300:], attributes={"theory": "PBE", "source": "y"})
    both = {"theory": "PBE", "source": "x; y"}
    write_store(tmp_path / "whole.h5", structures, attributes=both)
    return tmp_path


def test_a_merged_file_is_the_one_written_at_once(parts):
    seen = []
    merge_stores(
        [parts / "a.h5", parts / "b.h5"], parts / "c.h5", progress=lambda *at: seen.append(at)
    )
    assert (parts / "c.h5").read_bytes() == (parts / "whole.h5").read_bytes()
    assert seen == [(256, 700), (300, 700), (556, 700), (700, 700)]


def test_appending_replaces_the_first_file(parts):
    merge_stores([parts / "a.h5", parts / "b.h5"], parts / "a.h5")
    assert (parts / "a.h5").read_bytes() == (parts / "whole.h5").read_bytes()
    verify_store(open_store(parts / "a.h5"))


def test_attributes_are_not_repeated(parts):
    merge_stores([parts / "whole.h5", parts / "a.h5"], parts / "c.h5")
    assert open_store(parts / "c.h5").attributes == {"theory": "PBE", "source": "x; y"}


def test_a_damaged_source_is_refused_and_nothing_is_changed(parts):
    with h5py.File(parts / "b.h5", "r+") as file:
        file["energy"][3] += 1.0
    before = (parts / "a.h5").read_bytes()
    with pytest.raises(ValueError, match="b.h5 do not match .* structures 0 to 255"):
        merge_stores([parts / "a.h5", parts / "b.h5"], parts / "a.h5")
    assert (parts / "a.h5").read_bytes() == before
    assert {path.name for path in parts.iterdir()} == {"a.h5", "b.h5", "whole.h5"}


def test_an_existing_output_is_kept_unless_asked(parts):
    with pytest.raises(FileExistsError, match="`overwrite`"):
        merge_stores([parts / "a.h5"], parts / "b.h5")
    with pytest.raises(FileExistsError, match="`overwrite`"):
        merge_stores([parts / "a.h5", parts / "b.h5"], parts / "b.h5")
    merge_stores([parts / "a.h5"], parts / "b.h5", overwrite=True)
    assert len(open_store(parts / "b.h5")) == 300


def test_a_missing_source_and_none_at_all_are_refused(parts):
    with pytest.raises(FileNotFoundError, match="z.h5"):
        merge_stores([parts / "a.h5", parts / "z.h5"], parts / "c.h5")
    with pytest.raises(ValueError, match="no datasets"):
        merge_stores([], parts / "c.h5")
