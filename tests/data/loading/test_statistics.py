import warnings

import numpy as np
import pytest

from tesseral.data.loading.statistics import (
    closest_distances,
    compute_statistics,
    fit_energies,
)
from tesseral.data.neighbors import neighbor_list
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import make_structure

PLANTED = {1: -13.6, 6: -1030.0, 8: -2040.0}


def planted(rng, numbers, noise=0.0):
    n = len(numbers)
    energy = sum(PLANTED[z] for z in numbers) + noise * n * rng.normal()
    positions = 1.5 * rng.random((n, 3))
    return make_structure(numbers, positions, energy=energy, forces=rng.normal(size=(n, 3)))


def stored(tmp_path, structures):
    write_store(tmp_path / "a.h5", structures)
    return open_store(tmp_path / "a.h5")


def test_least_squares_recovers_planted_energies(tmp_path):
    rng = np.random.default_rng(0)
    structures = [
        planted(rng, rng.choice([1, 6, 8], size=rng.integers(3, 9)).tolist()) for _ in range(60)
    ]
    statistics = compute_statistics(stored(tmp_path, structures), range(60), 3.0)
    assert statistics.elements == (1, 6, 8)
    # the ridge pulls energies that are a thousand eV apart together by a fraction of 1e-5
    np.testing.assert_allclose(statistics.reference_energies, list(PLANTED.values()), atol=0.05)


def test_noise_is_averaged(tmp_path):
    rng = np.random.default_rng(0)
    structures = [
        planted(rng, rng.choice([1, 6, 8], size=8).tolist(), noise=0.1) for _ in range(400)
    ]
    statistics = compute_statistics(stored(tmp_path, structures), range(400), 3.0)
    np.testing.assert_allclose(statistics.reference_energies, list(PLANTED.values()), atol=0.1)


def test_one_composition_warns_and_meets_the_mean_energy(tmp_path):
    rng = np.random.default_rng(0)
    numbers = [6] * 5 + [1] * 8 + [8] * 2
    structures = [planted(rng, numbers, noise=0.01) for _ in range(20)]
    store = stored(tmp_path, structures)
    with pytest.warns(UserWarning, match="determine only 1 of the reference energies of H, C, O"):
        statistics = compute_statistics(store, range(20), 3.0)
    energies = np.array(statistics.reference_energies)
    predicted = energies[[statistics.elements.index(z) for z in numbers]].sum()
    mean = np.mean([structure.energy for structure in structures])
    assert predicted == pytest.approx(mean, abs=1e-8 * abs(mean))
    np.testing.assert_allclose(energies, mean / 15, rtol=1e-9)


def test_the_mean_energy_is_met_for_any_compositions():
    rng = np.random.default_rng(0)
    fractions = rng.dirichlet(np.ones(3), size=30)
    targets = rng.normal(-500.0, 100.0, size=30)
    residual = targets - fractions @ fit_energies(fractions, targets)
    assert abs(residual.mean()) < 1e-9


def test_identifiable_compositions_do_not_warn(tmp_path):
    rng = np.random.default_rng(0)
    store = stored(tmp_path, [planted(rng, [1] * k + [6]) for k in range(1, 5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute_statistics(store, range(4), 3.0)


def test_isolated_atoms_of_the_set_come_before_least_squares(tmp_path):
    rng = np.random.default_rng(0)
    structures = [planted(rng, [1, 6, 6])._replace(energy=-2.0) for _ in range(4)]
    structures += [
        make_structure([1], [[0, 0, 0]], energy=-13.0),
        make_structure([1], [[0, 0, 0]], energy=-13.5),
    ]
    statistics = compute_statistics(stored(tmp_path, structures), range(6), 3.0)
    assert statistics.reference_energies[0] == -13.5  # the lower of the two
    assert statistics.reference_energies[1] == pytest.approx((-2.0 + 13.5) / 2)


def test_binding_energies_stand_beside_isolated_atoms_only(tmp_path):
    rng = np.random.default_rng(0)
    molecules = [planted(rng, [1] * k + [6]) for k in range(1, 5)]
    atoms = [make_structure([z], [[0, 0, 0]], energy=e) for z, e in ((1, -13.0), (6, -1020.0))]
    store = stored(tmp_path, molecules + atoms)
    fitted = compute_statistics(store, range(4), 3.0)
    assert fitted.binding_energies == ()
    statistics = compute_statistics(store, range(6), 3.0)
    assert statistics.reference_energies == (-13.0, -1020.0)
    total = np.add(statistics.reference_energies, statistics.binding_energies)
    np.testing.assert_allclose(total, [PLANTED[1], PLANTED[6]], atol=0.01)
    given = compute_statistics(store, range(4), 3.0, isolated_energies={"H": -13.0, "C": -1020.0})
    np.testing.assert_allclose(given.binding_energies, statistics.binding_energies)


def test_a_lone_atom_in_a_periodic_cell_is_no_isolated_atom(tmp_path):
    rng = np.random.default_rng(0)
    bulk = make_structure([6], [[0, 0, 0]], cell=2 * np.eye(3), energy=-9.0, forces=[[0, 0, 0]])
    structures = [planted(rng, [6, 6])._replace(energy=-14.0), bulk]
    statistics = compute_statistics(stored(tmp_path, structures), range(2), 3.0)
    assert statistics.reference_energies == pytest.approx([-8.0])


def test_given_energies_come_first(tmp_path):
    rng = np.random.default_rng(0)
    structures = [planted(rng, [1, 6]), make_structure([1], [[0, 0, 0]], energy=-13.0)]
    statistics = compute_statistics(
        stored(tmp_path, structures), range(2), 3.0, isolated_energies={"H": -12.0, "Mo": 1.0}
    )
    assert statistics.reference_energies[0] == -12.0
    assert statistics.reference_energies[1] == pytest.approx(PLANTED[1] + PLANTED[6] + 12.0)


@pytest.mark.parametrize("given", [{"Xx": 1.0}, {"carbon": 1.0}, {"H": float("nan")}])
def test_wrong_given_energies_are_refused(small_store, given):
    with pytest.raises(ValueError, match="isolated_energies"):
        compute_statistics(open_store(small_store), range(40), 3.0, isolated_energies=given)


def test_only_the_given_rows_count(tmp_path):
    rng = np.random.default_rng(0)
    store = stored(tmp_path, [planted(rng, [1, 1]), planted(rng, [6, 6, 8])])
    statistics = compute_statistics(store, [0], 3.0)
    assert (statistics.elements, statistics.n_structures, statistics.n_atoms) == ((1,), 1, 2)


def test_force_rms_is_of_components_that_are_known(tmp_path):
    known = make_structure([1, 1], np.eye(3)[:2], energy=0.0, forces=[[3, 0, 0], [0, 0, -3]])
    missing = make_structure([1, 1], np.eye(3)[:2], energy=0.0)
    statistics = compute_statistics(stored(tmp_path, [known, missing]), range(2), 3.0)
    assert statistics.force_rms == pytest.approx(np.sqrt(18 / 6))


def test_mean_neighbors(small_store):
    store = open_store(small_store)
    statistics = compute_statistics(store, range(40), 3.0)
    edges = [len(neighbor_list(s.positions, s.cell, s.pbc, 3.0).senders) for s in store]
    assert statistics.mean_neighbors == pytest.approx(sum(edges) / 160)


def test_large_sets_are_sampled(small_store, monkeypatch):
    store = open_store(small_store)
    exact = compute_statistics(store, range(40), 3.0)
    monkeypatch.setattr("tesseral.data.loading.statistics.MAX_NEIGHBOR_SAMPLE", 20)
    sampled = compute_statistics(store, range(40), 3.0)
    assert sampled.mean_neighbors != exact.mean_neighbors
    assert sampled.mean_neighbors == pytest.approx(exact.mean_neighbors, rel=0.3)
    assert sampled == compute_statistics(store, range(40), 3.0)


def test_closest_distances_are_those_of_the_pairs(tmp_path):
    """Across a periodic face, of the given rows only, and infinite where none was found."""
    none = {"energy": 0.0, "forces": np.zeros((2, 3))}
    cell, pbc = 6 * np.eye(3), [True] * 3
    structures = [
        make_structure([1, 8], [[0, 0, 0.2], [0, 0, 5.1]], cell=cell, pbc=pbc, **none),
        make_structure([1, 8], [[0, 0, 0], [0, 0, 1.3]], **none),
        make_structure([8, 8], [[0, 0, 0], [0, 0, 0.5]], **none),
    ]
    found = closest_distances(stored(tmp_path, structures), np.array([0, 1]), (1, 6, 8), 2.0)
    expected = np.full((3, 3), np.inf)
    expected[0, 2] = expected[2, 0] = 1.1
    np.testing.assert_allclose(found, expected)


def test_no_energies_are_refused(tmp_path):
    store = stored(tmp_path, [make_structure([1], [[0, 0, 0]], forces=[[0, 0, 0]])])
    with pytest.raises(ValueError, match="has an energy"):
        compute_statistics(store, [0], 3.0)


def test_no_forces_are_refused(tmp_path):
    store = stored(tmp_path, [make_structure([1, 1], np.eye(3)[:2], energy=1.0)])
    with pytest.raises(ValueError, match="has forces"):
        compute_statistics(store, [0], 3.0)


def test_no_neighbors_are_refused(tmp_path):
    apart = make_structure([1, 1], [[0, 0, 0], [0, 0, 9]], energy=1.0, forces=np.ones((2, 3)))
    with pytest.raises(ValueError, match="within the cutoff of 3.0 Å"):
        compute_statistics(stored(tmp_path, [apart]), [0], 3.0)


def test_no_structures_are_refused(small_store):
    with pytest.raises(ValueError, match="no structures"):
        compute_statistics(open_store(small_store), [], 3.0)
