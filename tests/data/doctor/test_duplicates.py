"""Copies, near-copies and what a split tears apart."""

import numpy as np
import pytest

from tesseral.data.doctor.checkup import check_between, check_split
from tesseral.data.doctor.duplicates import check_duplicates
from tesseral.data.doctor.fingerprints import NEAR, make_fingerprints
from tesseral.data.doctor.sample import read_sample
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import Structure


def doubled(structure: Structure) -> Structure:
    """A supercell of two cells, the first lattice vector replaced by an equivalent one."""
    shift = structure.cell[0]
    return structure._replace(
        numbers=np.tile(structure.numbers, 2),
        positions=np.concatenate([structure.positions, structure.positions + shift]),
        cell=np.stack([2 * shift, structure.cell[1] + shift, structure.cell[2]]),
        energy=2 * structure.energy,
        forces=np.tile(structure.forces, (2, 1)),
    )


def moved(structure: Structure, distance: float, seed: int = 0) -> Structure:
    step = np.random.default_rng(seed).normal(size=structure.positions.shape) / np.sqrt(3)
    return structure._replace(positions=structure.positions + distance * step)


@pytest.fixture
def subject_of(tmp_path):
    def make(structures, name="a"):
        write_store(tmp_path / f"{name}.h5", structures)
        return read_sample(open_store(tmp_path / f"{name}.h5"), 10**9)

    return make


def by_check(findings):
    print([(f.severity, f.check, f.rows, f.found) for f in findings])
    return {f.check: f for f in findings}


def examined(sample):
    prints = make_fingerprints(sample.structures, sample.elements)
    return by_check(check_duplicates(sample, prints))


def distance_of_last_two(structures):
    values = make_fingerprints(structures, (6, 14)).values
    return float(np.linalg.norm(values[-1] - values[-2]))


@pytest.mark.parametrize("kind", ["turned", "doubled"])
def test_fingerprints_do_not_depend_on_the_frame(sic, turned, kind):
    change = {"turned": turned, "doubled": doubled}[kind]
    for structure in sic[:4]:
        apart = distance_of_last_two([*sic[:30], structure, change(structure)])
        print(apart)
        assert apart < 1e-6


def test_fingerprints_measure_displacements(sic):
    """Within a factor of three, whatever the structure."""
    apart = [distance_of_last_two([*sic[:40], s, moved(s, 0.05)]) for s in sic[40:48]]
    print(np.round(apart, 3))
    assert 0.05 / 3 < np.median(apart) < 0.05 * 3


def test_copies_are_found_and_no_others(sic, turned, subject_of):
    copies = [turned(sic[row], row) for row in (3, 50, 99)]
    found = examined(subject_of([*sic[:100], *copies]))
    assert found["duplicates"].rows == (100, 101, 102)
    assert found["duplicates"].fix.label == "structure"
    assert "conflicting duplicates" not in found


def test_copies_with_other_labels_are_an_error(sic, turned, subject_of):
    wrong = turned(sic[3])
    found = examined(subject_of([*sic[:40], wrong._replace(energy=wrong.energy + 1.0)]))
    assert found["conflicting duplicates"].rows == (3, 40)
    assert found["conflicting duplicates"].severity == "error"
    assert "duplicates" not in found


def test_neighbours_of_a_trajectory_are_noted(sic, subject_of):
    found = examined(subject_of([*sic[:40], moved(sic[5], 0.2 * NEAR)]))
    assert {5, 40} <= set(found["near-duplicates"].rows)
    assert "duplicates" not in found


def test_two_files_with_the_same_structures(sic, turned, subject_of):
    first = subject_of(sic[:60])
    second = subject_of([sic[80], turned(sic[7]), sic[81], moved(sic[9], 0.2 * NEAR)], "b")
    checkup = check_between(first, second)
    print(checkup.findings)
    assert [(f.severity, f.rows) for f in checkup.findings] == [("error", (1,)), ("warning", (3,))]
    assert not checkup.safe
    assert check_between(first, subject_of(sic[60:64], "c")).safe


def test_two_files_with_the_same_group(sic, subject_of):
    first = subject_of([s._replace(group="run 1") for s in sic[:20]])
    second = subject_of([sic[30], sic[31]._replace(group="run 1")], "b")
    found = by_check(check_between(first, second).findings)
    assert found["leakage"].rows == (1,)


@pytest.mark.parametrize(("method", "leaks"), [("random", True), ("auto", False)])
def test_a_split_of_a_trajectory(sic, subject_of, method, leaks):
    """A slow trajectory of one structure: steps of 0.01 Å."""
    steps = [moved(sic[0], 0.01 * step) for step in range(60)]
    steps = [s._replace(energy=s.energy + 0.01 * step) for step, s in enumerate(steps)]
    sample = subject_of([*steps, *sic[60:80]])
    checkup = check_split(sample, method=method, fraction=0.1, seed=0)
    torn = sum(len(f.rows) for f in checkup.findings)
    print(checkup.measured, torn)
    assert (torn >= 3) if leaks else (torn <= 2)
