import numpy as np
import pytest

from tesseral.data.loading.splits import SPLITS, split_folds, split_store, write_split
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import make_structure


def stored(tmp_path, structures):
    write_store(tmp_path / "a.h5", structures)
    return open_store(tmp_path / "a.h5")


@pytest.mark.parametrize("method", SPLITS)
@pytest.mark.parametrize("seed", range(5))
def test_parts_are_disjoint_complete_and_not_empty(small_store, method, seed):
    split = split_store(open_store(small_store), method=method, fraction=0.1, seed=seed)
    assert sorted([*split.train, *split.validation]) == list(range(40))
    assert len(split.train) and len(split.validation)


def test_random_fraction(small_store):
    split = split_store(open_store(small_store), method="random", fraction=0.25, seed=0)
    assert len(split.validation) == 10


def test_group_keeps_groups_together(small_store):
    store = open_store(small_store)
    groups = np.array(store.texts("group"))
    split = split_store(store, method="group", fraction=0.25, seed=0)
    assert not set(groups[split.train]) & set(groups[split.validation])
    assert len(split.validation) == 10


def test_seed_decides(small_store):
    store = open_store(small_store)
    first, again, other = (
        split_store(store, method="random", fraction=0.2, seed=seed).validation.tolist()
        for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_extreme_fractions_leave_both_parts_something(small_store, fraction):
    split = split_store(open_store(small_store), method="random", fraction=fraction, seed=0)
    assert len(split.train) and len(split.validation)


def test_isolated_atoms_are_for_training(tmp_path):
    atoms = [make_structure([1], [[0, 0, 0]], energy=0.0)] * 3
    store = stored(tmp_path, [*atoms, *[make_structure([1, 1], np.eye(3)[:2])] * 3])
    for seed in range(5):
        split = split_store(store, method="random", fraction=0.5, seed=seed)
        assert {0, 1, 2} <= set(split.train.tolist())


def test_the_only_structure_with_an_element_is_for_training(tmp_path):
    carbon, mixed = (make_structure(z, np.eye(3)[:2]) for z in ([6, 6], [6, 14]))
    store = stored(tmp_path, [carbon, carbon, carbon, mixed])
    for seed in range(8):
        split = split_store(store, method="random", fraction=0.5, seed=seed)
        assert 3 in split.train
        assert len(split.validation)


def test_too_little_to_split_is_refused(tmp_path):
    store = stored(tmp_path, [make_structure([6, 6], np.eye(3)[:2])])
    with pytest.raises(ValueError, match="too few structures to split, 1; give two or more"):
        split_store(store, method="random", fraction=0.5, seed=0)


def test_no_groups_are_refused(tmp_path):
    store = stored(tmp_path, [make_structure([6, 6], np.eye(3)[:2])] * 4)
    with pytest.raises(ValueError, match="`group_key`"):
        split_store(store, method="group", fraction=0.5, seed=0)


def test_unknown_method_is_refused(small_store):
    with pytest.raises(ValueError, match="use auto, group, blocks, random"):
        split_store(open_store(small_store), method="magic", fraction=0.5, seed=0)


def series(count, **texts):
    """Structures of two atoms that can be told apart by their energies."""
    pair = make_structure([6, 6], np.eye(3)[:2])
    return [pair._replace(energy=float(row), **texts) for row in range(count)]


def runs(rows):
    """Number of runs of consecutive rows."""
    return 1 + int((np.diff(rows) > 1).sum())


@pytest.mark.parametrize("seed", range(5))
def test_one_trajectory_gives_one_run(tmp_path, seed):
    split = split_store(stored(tmp_path, series(60)), method="auto", fraction=0.1, seed=seed)
    print(split.validation, split.reason)
    assert len(split.validation) == 6
    assert runs(split.validation) == 1
    assert "blocks of consecutive structures" in split.reason


@pytest.mark.parametrize("seed", range(5))
def test_every_config_type_is_validated_on(tmp_path, seed):
    structures = [*series(100, config_type="solid"), *series(40, config_type="melt")]
    structures = [s._replace(energy=float(row)) for row, s in enumerate(structures)]
    split = split_store(stored(tmp_path, structures), method="auto", fraction=0.1, seed=seed)
    print(split)
    assert (split.validation < 100).sum() == 10
    assert (split.validation >= 100).sum() == 4
    assert runs(split.validation) <= 3


def test_many_config_types_of_few_structures_give_the_fraction(tmp_path):
    structures = [s._replace(config_type=f"{row // 3}") for row, s in enumerate(series(90))]
    split = split_store(stored(tmp_path, structures), method="blocks", fraction=0.1, seed=0)
    assert len(split.validation) == 9


def test_many_groups_are_kept_whole(tmp_path):
    structures = [s._replace(group=f"{row // 4}") for row, s in enumerate(series(120))]
    split = split_store(stored(tmp_path, structures), method="auto", fraction=0.1, seed=0)
    print(split)
    assert not {row // 4 for row in split.train} & {row // 4 for row in split.validation}
    assert "whole groups" in split.reason


def test_many_molecules_are_kept_whole(tmp_path):
    """Without names of groups; five conformers of each composition."""
    structures = [
        make_structure([6] + [1] * (row // 5 + 1), np.arange(3 * (row // 5 + 2)).reshape(-1, 3))
        for row in range(150)
    ]
    split = split_store(stored(tmp_path, structures), method="auto", fraction=0.1, seed=0)
    assert not {row // 5 for row in split.train} & {row // 5 for row in split.validation}
    assert "same atoms" in split.reason


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_on_one_side(tmp_path, seed):
    structures = series(40)
    structures += [structures[row] for row in range(0, 40, 2)]
    split = split_store(stored(tmp_path, structures), method="auto", fraction=0.2, seed=seed)
    energies = [float(s.energy) for s in structures]
    print(split)
    assert not {energies[i] for i in split.train} & {energies[i] for i in split.validation}


def pair(positions, energy):
    return make_structure([6, 6], positions, energy=float(energy))


@pytest.mark.parametrize("method", SPLITS)
@pytest.mark.parametrize("folds", [2, 4])
def test_folds_hold_out_each_structure_once(small_store, method, folds):
    splits = split_folds(open_store(small_store), folds=folds, method=method, seed=3)
    assert sorted(row for split in splits for row in split.validation) == list(range(40))
    for split in splits:
        assert sorted([*split.train, *split.validation]) == list(range(40))
        assert 40 / folds - 5 <= len(split.validation) <= 40 / folds + 5


def test_folds_keep_groups_and_copies_together(tmp_path):
    generator = np.random.default_rng(0)
    structures = [
        pair(generator.normal(size=(2, 3)), number // 2)._replace(group=f"g{number % 6}")
        for number in range(48)
    ]
    store = stored(tmp_path, structures)
    groups, energies = np.array(store.texts("group")), store.energies
    for split in split_folds(store, folds=3, method="group", seed=0):
        assert not {*groups[split.train]} & {*groups[split.validation]}
    for split in split_folds(store, folds=3, method="blocks", seed=0):
        assert not {*energies[split.train]} & {*energies[split.validation]}


def test_each_fold_has_its_part_of_each_config_type(tmp_path):
    kinds = ["bulk"] * 20 + ["slab"] * 8 + ["melt"] * 4
    structures = [
        pair(np.eye(3)[:2], row)._replace(config_type=kind) for row, kind in enumerate(kinds)
    ]
    for split in split_folds(stored(tmp_path, structures), folds=4, method="auto", seed=1):
        found = [kinds[row] for row in split.validation]
        assert [found.count(kind) for kind in ("bulk", "slab", "melt")] == [5, 2, 1]


def test_folds_do_not_hold_out_isolated_atoms_or_the_only_structure_of_an_element(tmp_path):
    atom = make_structure([6], [[0, 0, 0]], energy=-1.0)
    pairs = [pair(np.eye(3)[:2], row) for row in range(6)]
    mixed = make_structure([6, 14], np.eye(3)[:2], energy=9.0)
    splits = split_folds(stored(tmp_path, [atom, *pairs, mixed]), folds=3, method="random", seed=0)
    assert sorted(row for split in splits for row in split.validation) == [1, 2, 3, 4, 5, 6]


def test_more_folds_than_parts_are_refused(tmp_path):
    pairs = [pair(np.eye(3)[:2], row) for row in range(3)]
    with pytest.raises(ValueError, match="too few independent structures for 4 folds"):
        split_folds(stored(tmp_path, pairs), folds=4, method="auto", seed=0)


def test_parts_of_a_trajectory_that_follow_each_other_go_to_different_folds(tmp_path):
    structures = [pair(np.eye(3)[:2], row) for row in range(100)]
    for seed in range(5):
        splits = split_folds(stored(tmp_path, structures), folds=5, method="auto", seed=seed)
        late = [int((split.validation >= 50).sum()) for split in splits]
        assert late == [10] * 5


def test_a_test_set_is_written_beside_a_training_set(small_store, tmp_path):
    train, test = tmp_path / "train.h5", tmp_path / "test.h5"
    seen = []
    split = write_split(
        small_store,
        train,
        test,
        fraction=0.25,
        method="group",
        progress=lambda done, total: seen.append(done),
    )
    source, first, second = map(open_store, (small_store, train, test))
    assert len(first) + len(second) == len(source) == seen[-1]
    assert second.attributes == source.attributes
    for store, rows in ((first, split.train), (second, split.validation)):
        for one, row in zip(store, rows.tolist(), strict=True):
            other = source[row]
            assert one.energy == other.energy and one.group == other.group
            np.testing.assert_array_equal(one.forces, other.forces)
    assert not set(first.texts("group")) & set(second.texts("group"))


def test_files_are_not_replaced_and_must_differ(small_store, tmp_path):
    train, test = tmp_path / "train.h5", tmp_path / "test.h5"
    test.write_text("mine")
    with pytest.raises(FileExistsError, match=r"test.h5 exists; pass `overwrite`"):
        write_split(small_store, train, test)
    assert test.read_text() == "mine" and not train.exists()
    write_split(small_store, train, test, overwrite=True)
    assert len(open_store(test)) == 4
    for pair in ((train, train), (small_store, test)):
        with pytest.raises(ValueError, match="three different files"):
            write_split(small_store, *pair, overwrite=True)
    with pytest.raises(ValueError, match="`fraction` is 1.5"):
        write_split(small_store, train, test, fraction=1.5)
