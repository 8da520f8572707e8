"""Labels that are missing, have a sum or belong to another structure; geometry; theories."""

import numpy as np
import pytest

from tesseral.data.doctor.consistency import check_consistency
from tesseral.data.doctor.geometry import check_geometry, measure_distances
from tesseral.data.doctor.labels import check_labels
from tesseral.data.doctor.sample import read_sample
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import make_structure
from tesseral.data.units import BOHR_IN_A


@pytest.fixture
def subject_of(tmp_path):
    def make(structures):
        write_store(tmp_path / "a.h5", structures)
        return read_sample(open_store(tmp_path / "a.h5"), 10**9)

    return make


def by_check(findings):
    print([(f.severity, f.check, f.rows, f.found) for f in findings])
    return {f.check: f for f in findings}


def test_missing_labels_are_listed(sic, subject_of):
    wrong = list(sic[:20])
    wrong[4] = wrong[4]._replace(forces=np.nan * wrong[4].forces)
    found = by_check(check_labels(subject_of(wrong)))
    assert found["missing labels"].rows == (4,)
    assert found["missing labels"].severity == "warning"


def test_a_set_without_forces_is_an_error(sic, subject_of):
    found = by_check(check_labels(subject_of([s._replace(forces=np.nan * s.forces) for s in sic])))
    assert found["missing labels"].severity == "error"
    assert "`forces_key`" in found["missing labels"].advice


def test_forces_with_a_sum(sic, subject_of):
    wrong = list(sic[:20])
    wrong[2] = wrong[2]._replace(forces=wrong[2].forces + [1.0, 0.0, 0.0])
    found = by_check(check_labels(subject_of(wrong)))
    assert list(found) == ["net force"]
    assert found["net force"].rows == (2,)


def test_forces_of_another_structure(sic, subject_of):
    wrong = list(sic[:20])
    same = [row for row in range(20) if len(sic[row].numbers) == len(sic[0].numbers)]
    wrong[same[3]] = wrong[same[3]]._replace(forces=wrong[same[1]].forces)
    found = by_check(check_labels(subject_of(wrong)))
    assert found["stale labels"].rows == (same[3],)


def test_forces_of_zero(sic, subject_of):
    """An error for distorted structures, not for a perfect crystal and an isolated atom."""
    zero = [s._replace(forces=0 * s.forces) for s in sic[:3]]
    cell = 2.7 * (1 - np.eye(3))
    perfect = make_structure(
        [14, 14], [[0, 0, 0], [1.35, 1.35, 1.35]], cell=cell, energy=-10.0, forces=np.zeros((2, 3))
    )
    alone = make_structure([6], [[0, 0, 0]], energy=0.0, forces=np.zeros((1, 3)))
    found = by_check(check_labels(subject_of([*sic[3:20], *zero, perfect, alone])))
    assert found["zero labels"].rows == (17, 18, 19)
    assert found["zero labels"].severity == "error"
    assert np.isnan(found["zero labels"].fix.factor)


def geometry(sample, cutoff=5.0):
    return by_check(check_geometry(sample, measure_distances(sample, cutoff), cutoff))


def test_positions_in_bohr(sic, subject_of):
    wrong = [
        s._replace(positions=s.positions / BOHR_IN_A, cell=s.cell / BOHR_IN_A) for s in sic[:20]
    ]
    assert "length unit" in geometry(subject_of(wrong))
    assert "length unit" not in geometry(subject_of(sic[:20]))


def test_atoms_on_top_of_each_other(sic, subject_of):
    wrong = list(sic[:10])
    positions = wrong[6].positions.copy()
    positions[0] = positions[1] + 0.1
    wrong[6] = wrong[6]._replace(positions=positions)
    found = geometry(subject_of(wrong))
    assert found["distances"].rows == (6,)
    assert found["distances"].severity == "error"


def test_atoms_without_neighbours(sic, subject_of):
    far = make_structure([6, 6, 14], [[0, 0, 0], [1.5, 0, 0], [30, 0, 0]], energy=0.0)
    found = geometry(subject_of([*sic[:5], far]))
    assert found["cutoff"].rows == (5,)


def consistency(sample, residuals=None):
    unknown = np.full(len(sample.rows), np.nan)
    return by_check(check_consistency(sample, unknown if residuals is None else residuals))


def test_theories_are_counted(sic, subject_of):
    mixed = [*sic[:9], sic[9]._replace(theory="LDA")]
    found = consistency(subject_of(mixed))
    assert found["theory"].rows == (9,)
    assert "LDA (1)" in found["theory"].found


def test_a_source_with_another_zero_of_energy(sic, subject_of):
    mixed = [s._replace(source="b" if row < 8 else "a") for row, s in enumerate(sic[:40])]
    residuals = 0.005 * np.random.default_rng(0).normal(size=40)
    sample = subject_of(mixed)
    assert "theory" not in consistency(sample, residuals)
    residuals[:8] += 0.3
    assert consistency(sample, residuals)["theory"].rows == tuple(range(8))


def test_compositions_that_leave_reference_energies_open(sic, subject_of):
    one = [s for s in sic if (s.numbers == 6).sum() == (s.numbers == 14).sum()]
    found = consistency(subject_of(one[:20]))
    assert "1 of 2 reference energies" in found["reference energies"].found
    alone = [make_structure([z], [[0, 0, 0]], energy=-1.0) for z in (6, 14)]
    assert "reference energies" not in consistency(subject_of([*one[:20], *alone]))
