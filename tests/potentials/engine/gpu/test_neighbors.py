"""The search for neighbours on a GPU, compiled for the CPU, finds what the one of the CPU finds."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tesseral.data.cells import complete_cell
from tesseral.data.neighbors import NeighborList, neighbor_list
from tesseral.potentials.engine.gpu import neighbors
from tesseral.potentials.engine.gpu.host import HostKernels

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    return HostKernels(neighbors.SOURCE, Path(tmp_path_factory.mktemp("kernels")))


@pytest.fixture(scope="module")
def search(kernels: HostKernels):
    def run(positions: np.ndarray, *arrays: object):
        *tensors, cutoff = arrays
        about = (torch.tensor(each)[None] for each in tensors)
        one = torch.zeros(len(positions), dtype=torch.int64)
        found = neighbors.search(kernels, torch.tensor(positions), one, *about, cutoff)
        return [part.numpy() for part in found]

    return run


def as_set(edges: NeighborList) -> set[tuple[int, ...]]:
    rows = zip(edges.senders, edges.receivers, edges.shifts.astype(int), strict=True)
    found = {(int(j), int(i), *map(int, shift)) for j, i, shift in rows}
    assert len(found) == len(edges.senders), "an edge occurs twice"
    return found


@pytest.mark.parametrize("pbc", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("atoms", [1, 8, 300])
def test_the_same_edges(search, pbc, atoms) -> None:
    random = np.random.default_rng(atoms + sum(pbc))
    size = max(2.0, 0.8 * atoms ** (1 / 3))
    cell = np.diag(random.uniform(1, 2, 3)) * size + np.tril(random.uniform(-1, 1, (3, 3)), -1)
    positions = random.uniform(-1, 2, (atoms, 3)) @ cell  # outside the cell too
    for cutoff in (0.7, 2.5):
        found = neighbor_list(positions, cell, pbc, cutoff, search)
        expected = neighbor_list(positions, cell, pbc, cutoff)
        assert as_set(found) == as_set(expected)
        assert (np.diff(found.receivers) >= 0).all()


def test_every_edge_has_its_reverse_at_the_cutoff(search) -> None:
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3) * 1.1
    found = neighbor_list(grid, np.eye(3) * 5.5, [True] * 3, 2.2, search)
    edges = as_set(found)
    assert all((i, j, *(-s for s in shift)) in edges for j, i, *shift in edges)


def test_atoms_in_a_plane_without_periods(search) -> None:
    positions = np.random.default_rng(0).uniform(0, 12, (150, 3)) * [1, 1, 0]
    found = neighbor_list(positions, np.zeros((3, 3)), [False] * 3, 2.0, search)
    assert as_set(found) == as_set(neighbor_list(positions, np.zeros((3, 3)), [False] * 3, 2.0))


def test_many_systems_at_once(kernels: HostKernels) -> None:
    random = np.random.default_rng(1)
    sizes, cutoff = [1, 40, 7, 300, 2, 90, 33, 8], 2.5
    every = list(itertools.product([True, False], repeat=3))
    positions, cells = [], []
    for atoms in sizes:
        size = max(2.0, 0.8 * atoms ** (1 / 3))
        skew = np.tril(random.uniform(-1, 1, (3, 3)), -1)
        cells.append(np.diag(random.uniform(1, 2, 3)) * size + skew)
        positions.append(random.uniform(-1, 2, (atoms, 3)) @ cells[-1])
    boxes = np.stack([complete_cell(cell, pbc) for cell, pbc in zip(cells, every, strict=True)])
    structure = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    about = (torch.tensor(each) for each in (boxes, np.linalg.inv(boxes), np.array(every)))
    points = torch.tensor(np.concatenate(positions))
    found = NeighborList(
        *(each.numpy() for each in neighbors.search(kernels, points, structure, *about, cutoff))
    )
    assert (np.diff(found.receivers) >= 0).all()
    start = 0
    for own, cell, pbc in zip(positions, cells, every, strict=True):
        expected = neighbor_list(own, cell, pbc, cutoff)
        inside = (found.receivers >= start) & (found.receivers < start + len(own))
        ends = found.senders[inside] - start, found.receivers[inside] - start
        assert as_set(NeighborList(*ends, found.shifts[inside])) == as_set(expected)
        start += len(own)
