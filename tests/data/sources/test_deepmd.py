"""Systems of DeePMD-kit."""

from collections import Counter

import numpy as np
import pytest
from two_atoms import CELL, ENERGY, FORCES, POSITIONS, VIRIAL, assert_read

from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.sources.deepmd import is_system, read_deepmd
from tesseral.data.sources.search import find_sources
from tesseral.data.store.read import open_store


def write(folder, frames=1, names=("O", "Si"), types=(1, 0), periodic=True, **changes):
    """A system; atoms of type 1 are Si."""
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join(map(str, types)) + "\n")
    if names:
        (folder / "type_map.raw").write_text("\n".join(names) + "\n")
    if not periodic:
        (folder / "nopbc").write_text("")
    arrays = {"coord": POSITIONS, "force": FORCES, "energy": np.array(ENERGY), "virial": VIRIAL}
    arrays |= {"box": CELL} if periodic else {}
    arrays |= changes
    for number in range(frames):
        (folder / f"set.{number:03d}").mkdir()
        for name, array in arrays.items():
            np.save(folder / f"set.{number:03d}" / f"{name}.npy", array.reshape(1, -1))
    return folder


def read(folder, **options):
    return list(read_deepmd(str(folder), Counter(), **options))


def test_labels_of_each_set(tmp_path):
    frames = read(write(tmp_path / "a", frames=2))
    assert len(frames) == 2
    for atoms in frames:
        assert_read(atoms)


def test_given_elements_replace_the_names(tmp_path):
    assert_read(read(write(tmp_path / "a", names=()), elements=["O", "Si"])[0])
    assert_read(read(write(tmp_path / "b", names=("X1", "X2")), elements=["O", "Si"])[0])


def test_a_system_without_cell(tmp_path):
    folder = write(tmp_path / "a", periodic=False)
    assert_read(read(folder)[0], stress=False, periodic=False)


def test_mixed_types_with_missing_atoms(tmp_path):
    pad = np.zeros((1, 3))
    folder = write(
        tmp_path / "a",
        types=(0, 0, 0),
        real_atom_types=np.array([-1, 1, 0]),
        coord=np.concatenate([pad, POSITIONS]),
        force=np.concatenate([pad, FORCES]),
    )
    assert_read(read(folder)[0])


@pytest.mark.parametrize("names, message", [((), "`elements`"), (("O",), "types up to 1")])
def test_types_without_elements_are_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "a", names=names))


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    folder = write(tmp_path / "a", force=np.zeros(5))
    with pytest.raises(ValueError, match=r"force.npy has the shape \(1, 5\)"):
        read(folder)
    (folder / "set.000" / "box.npy").unlink()
    with pytest.raises(ValueError, match=r"no box.npy"):
        read(folder)


def test_systems_are_found_in_folders_and_imported(tmp_path):
    write(tmp_path / "data" / "a", frames=2)
    write(tmp_path / "data" / "b" / "c")
    sources = find_sources([str(tmp_path / "data")])
    assert [source.name for source in sources] == ["a", "b/c"]
    config = ImportConfig(sources=[str(tmp_path / "data")], output=str(tmp_path / "out.h5"))
    assert import_structures(config).structures == 3
    assert open_store(tmp_path / "out.h5").texts("source") == ["a", "a", "b/c"]


def test_a_folder_of_another_kind_is_no_system(tmp_path):
    assert not is_system(str(tmp_path))
    (tmp_path / "type.raw").write_text("0")
    assert not is_system(str(tmp_path))
