import itertools

import numpy as np
import pytest
import torch

from tesseral.data import cell_list
from tesseral.data.graph import edge_vectors
from tesseral.data.neighbors import atomic_graph, neighbor_list

ALL, NONE = [True] * 3, [False] * 3


@pytest.fixture(autouse=True, params=["compiled", "matscipy"])
def program(request, monkeypatch):
    """Both searches; the second is used where there is no compiler."""
    if request.param == "matscipy":
        monkeypatch.setattr(cell_list, "available", lambda: False)
    elif not cell_list.available():
        pytest.skip("the compiled search is missing")


def brute_force(positions, cell, pbc, cutoff):
    """Every pair within the cutoff, by trying all images that could be: (sender, receiver, S)."""
    vectors = np.asarray(cell)[np.asarray(pbc)]
    reach = [0, 0, 0]
    if len(vectors):
        # |S_k| <= |S @ cell| |dual_k|, and |S @ cell| <= cutoff + largest distance in the list
        dual = np.linalg.pinv(vectors)
        spread = np.linalg.norm(positions[:, None] - positions[None], axis=-1).max()
        bounds = np.ceil((cutoff + spread) * np.linalg.norm(dual, axis=0)).astype(int)
        for direction, bound in zip(np.nonzero(pbc)[0], bounds, strict=True):
            reach[direction] = bound
    found = set()
    for shift in itertools.product(*(range(-k, k + 1) for k in reach)):
        vector = positions[None] - positions[:, None] + np.array(shift) @ np.asarray(cell)
        close = np.linalg.norm(vector, axis=-1) < cutoff
        if not any(shift):
            np.fill_diagonal(close, False)
        found |= {(int(s), int(r), *shift) for s, r in zip(*np.nonzero(close), strict=True)}
    return found


def as_set(edges):
    shifts = edges.shifts.astype(int)
    found = {
        (int(s), int(r), *map(int, shift))
        for s, r, shift in zip(edges.senders, edges.receivers, shifts, strict=True)
    }
    assert len(found) == len(edges.senders), "an edge occurs twice"
    return found


@pytest.mark.parametrize("cutoff", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("pbc", list(itertools.product([True, False], repeat=3)))
def test_agrees_with_brute_force_for_skewed_cells_and_atoms_outside(pbc, cutoff):
    rng = np.random.default_rng(int(10 * cutoff) + sum(pbc))
    for _ in range(3):
        cell = np.diag(rng.uniform(1.8, 4, 3)) + np.tril(rng.uniform(-2.5, 2.5, (3, 3)), -1)
        positions = rng.normal(size=(5, 3)) * rng.uniform(1, 5)
        edges = neighbor_list(positions, cell, pbc, cutoff)
        assert as_set(edges) == brute_force(positions, cell, pbc, cutoff)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False), (False, False, False)])
def test_needs_no_cell_vector_where_not_periodic(pbc):
    rng = np.random.default_rng(1)
    cell = np.where(np.array(pbc)[:, None], 3 * np.eye(3) + 0.3 * rng.normal(size=(3, 3)), 0.0)
    positions = 3 * rng.normal(size=(6, 3))
    assert as_set(neighbor_list(positions, cell, pbc, 3.5)) == brute_force(
        positions, cell, pbc, 3.5
    )


def test_an_atom_sees_its_own_images_in_a_cell_smaller_than_the_cutoff():
    edges = neighbor_list([[0.1, 0.2, 0.3]], np.eye(3), ALL, 1.01)
    assert len(edges.senders) == 6
    assert (np.abs(edges.shifts).sum(axis=1) == 1).all()


def test_ignores_the_cell_of_a_molecule():
    edges = neighbor_list([[0.0, 0, 0], [0, 0, 49.5]], 50 * np.eye(3), NONE, 5.0)
    assert len(edges.senders) == 0


@pytest.mark.parametrize("pbc", [NONE, [True, False, False], [True, True, False]])
@pytest.mark.parametrize("distance", [1e3, 1e6])
def test_fragments_far_apart_cost_neither_memory_nor_warnings(pbc, distance):
    rng = np.random.default_rng(0)
    positions = rng.random((6, 3))
    positions[3:, 2] += distance
    edges = neighbor_list(positions, 20 * np.eye(3), pbc, 3.0)
    assert len(edges.senders) == 12


def test_sorted_by_receiver_then_sender():
    positions = np.random.default_rng(0).random((20, 3)) * 4
    edges = neighbor_list(positions, 4 * np.eye(3), ALL, 3.0)
    assert (np.diff(edges.receivers * 20 + edges.senders) >= 0).all()


def test_every_edge_has_its_reverse():
    positions = np.random.default_rng(0).random((9, 3)) * 4
    edges = neighbor_list(positions, 4 * np.eye(3), ALL, 3.0)
    forward = as_set(edges)
    assert forward == {(r, s, -a, -b, -c) for s, r, a, b, c in forward}


def test_edge_vectors_of_the_graph_are_within_the_cutoff():
    positions = np.random.default_rng(0).normal(size=(9, 3)) * 6
    graph = atomic_graph([6] * 9, positions, 4 * np.eye(3), ALL, (6,), 3.0)
    lengths = torch.linalg.norm(edge_vectors(graph), dim=1)
    assert graph.senders.numel() > 0
    assert lengths.max() < 3.0


def test_leaves_its_arguments_alone():
    positions = np.random.default_rng(0).normal(size=(5, 3))
    before = positions.copy()
    graph = atomic_graph([6] * 5, positions, np.zeros((3, 3)), NONE, (6,), 3.0)
    graph.positions.add_(1.0)
    assert np.array_equal(positions, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_positions_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="position of atom 1"):
        neighbor_list([[0, 0, 0], [0, bad, 0]], np.eye(3), ALL, 2.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan])
def test_refuses_a_cutoff_that_is_not_positive(cutoff):
    with pytest.raises(ValueError, match="cutoff"):
        neighbor_list([[0, 0, 0]], np.eye(3), ALL, cutoff)


def test_refuses_dependent_periodic_vectors():
    with pytest.raises(ValueError, match="linearly dependent"):
        neighbor_list([[0, 0, 0]], [[1, 0, 0], [2, 0, 0], [0, 0, 1]], ALL, 2.0)


def test_no_atoms_have_no_edges():
    assert len(neighbor_list(np.zeros((0, 3)), np.eye(3), ALL, 2.0).senders) == 0


def test_species_are_positions_in_the_element_list():
    graph = atomic_graph([14, 6, 14], np.eye(3) * 3, np.zeros((3, 3)), NONE, (6, 14, 42), 2.0)
    assert graph.species.tolist() == [1, 0, 1]


def test_names_an_element_the_model_does_not_know():
    with pytest.raises(ValueError, match="O is not one of .* C, Si"):
        atomic_graph([8, 6], np.eye(3)[:2] * 3, np.zeros((3, 3)), NONE, (6, 14), 2.0)


@pytest.mark.parametrize("few", [0, 100])
def test_small_and_large_molecules_have_the_same_edges(monkeypatch, few):
    monkeypatch.setattr("tesseral.data.neighbors.FEW", few)
    positions = 6 * np.random.default_rng(4).random((40, 3))
    edges = neighbor_list(positions, np.zeros((3, 3)), NONE, 2.5)
    assert as_set(edges) == brute_force(positions, np.zeros((3, 3)), NONE, 2.5)
    order = edges.receivers * 40 + edges.senders
    assert (np.diff(order) > 0).all() and edges.senders.dtype == np.int64


@pytest.mark.parametrize("program", ["compiled"], indirect=True)
@pytest.mark.parametrize("pbc", [ALL, [True, True, False], [False, True, False], NONE])
@pytest.mark.parametrize("cutoff", [2.0, 5.5])
def test_compiled_search_and_matscipy_find_the_same_edges(pbc, cutoff, monkeypatch):
    """In cells with many bins, skewed, with atoms in other cells."""
    rng = np.random.default_rng(7)
    cell = np.diag([19.0, 24.0, 31.0]) + np.tril(rng.uniform(-9, 9, (3, 3)), -1)
    positions = rng.uniform(-1, 2, (700, 3)) @ cell
    one = neighbor_list(positions, cell, pbc, cutoff)
    monkeypatch.setattr(cell_list, "available", lambda: False)
    other = neighbor_list(positions, cell, pbc, cutoff)
    assert len(one.senders) > 20
    assert as_set(one) == as_set(other)
    assert np.array_equal(one.senders, other.senders)
    assert np.array_equal(one.receivers, other.receivers)


@pytest.mark.parametrize("face", [1e-17, -1e-17, 0.0, 1 - 1e-16])
def test_atoms_on_a_face_of_the_cell_have_their_neighbors(face):
    """A coordinate that is rounded to the other face is still in a bin."""
    fractions = np.array([[face, 0.25, face], [0.5, 0.5, 0.5], [1 - 1e-9, face, 0.0]])
    cell = np.array([[6.0, 0, 0], [1.0, 7, 0], [0, 2.0, 8]])
    edges = neighbor_list(fractions @ cell, cell, ALL, 6.5)
    assert as_set(edges) == brute_force(fractions @ cell, cell, ALL, 6.5)
