"""The reused neighbour list: never misses a pair, and is reused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, make_supercell
from ase.md.langevin import Langevin
from numpy.typing import NDArray

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.skin import BatchNeighbors, SkinNeighbors
from tesseral.data.neighbors import NeighborList, neighbor_list

CUTOFF, SKIN = 4.0, 0.6


def lengths(atoms: Atoms, edges: NeighborList) -> NDArray[np.float64]:
    """Sorted lengths of the edges within the cutoff."""
    vectors = (
        atoms.positions[edges.receivers]
        - atoms.positions[edges.senders]
        + edges.shifts @ atoms.cell.array
    )
    found = np.linalg.norm(vectors, axis=1)
    return np.sort(found[found < CUTOFF])


def skewed() -> Atoms:
    """A Si cell with angles far from 90 degrees."""
    return make_supercell(bulk("Si"), [[1, 0, 0], [2, 1, 0], [1, 1, 2]])


def slab() -> Atoms:
    """A slab whose box height must not matter."""
    return fcc111("Al", (2, 2, 2), vacuum=5.0)


@pytest.mark.parametrize("make", [skewed, slab, lambda: Atoms("Si8", np.random.rand(8, 3) * 6)])
@pytest.mark.parametrize("strain", [0.0, 2e-3, 2e-2])
def test_no_pair_is_missed_on_a_random_walk(make: object, strain: float) -> None:
    np.random.seed(0)
    atoms: Atoms = make()  # type: ignore[operator]
    rng = np.random.default_rng(1)
    neighbors = SkinNeighbors(CUTOFF, SKIN)
    steps = 150
    for _ in range(steps):
        deformation = np.eye(3) + strain * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        atoms.positions += 0.02 * rng.normal(size=(len(atoms), 3)) + 0.1  # and a common drift
        used = neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
        fresh = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
        np.testing.assert_allclose(lengths(atoms, used), lengths(atoms, fresh), atol=1e-9)
    assert neighbors.builds < (steps if strain > 0.01 else steps // 5)


def test_the_bound_is_sharp() -> None:
    # Two atoms on a line, one skin outside the cutoff: the list is safe until the last moment.
    atoms = Atoms("Si2", positions=[[0, 0, 0], [CUTOFF + SKIN + 1e-6, 0, 0]])
    neighbors = SkinNeighbors(CUTOFF, SKIN)
    for approach, builds in ((0.0, 1), (0.99 * SKIN, 1), (1.01 * SKIN, 2)):
        moved = atoms.positions - np.array([[0, 0, 0], [approach, 0, 0]])
        neighbors.edges(moved, atoms.cell.array, atoms.pbc)
        assert neighbors.builds == builds


def test_uniform_compression_uses_up_the_skin() -> None:
    atoms = bulk("Si") * (2, 2, 2)
    neighbors = SkinNeighbors(CUTOFF, SKIN)
    limit = CUTOFF / (CUTOFF + SKIN)
    for scale, builds in ((1.0, 1), (1.1, 1), (limit + 1e-3, 1), (limit - 1e-3, 2)):
        neighbors.edges(atoms.positions * scale, atoms.cell.array * scale, atoms.pbc)
        assert neighbors.builds == builds


def test_rotation_of_everything_needs_no_search() -> None:
    atoms = bulk("Si") * (2, 2, 2)
    neighbors = SkinNeighbors(CUTOFF, SKIN)
    neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
    atoms.rotate(70, (1, 2, 3), rotate_cell=True)
    neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
    assert neighbors.builds == 1


@pytest.mark.parametrize("change", ["pbc", "count", "wrap"])
def test_other_atoms_need_a_search(change: str) -> None:
    atoms = bulk("Si", cubic=True)
    neighbors = SkinNeighbors(CUTOFF, SKIN)
    neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
    if change == "pbc":
        atoms.pbc = [True, True, False]
    elif change == "count":
        del atoms[3]
    else:
        atoms.positions[0] += atoms.cell.array[1]
    edges = neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
    fresh = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
    np.testing.assert_allclose(lengths(atoms, edges), lengths(atoms, fresh), atol=1e-9)


def test_inputs_are_kept_as_copies() -> None:
    # MD moves positions in place; the reference must not move along.
    atoms = bulk("Si", cubic=True)
    neighbors = SkinNeighbors(CUTOFF, SKIN)
    neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
    atoms.positions[0] += 1.0
    neighbors.edges(atoms.positions, atoms.cell.array, atoms.pbc)
    assert neighbors.builds == 2


def test_no_pair_of_a_batch_is_missed_after_a_search_that_failed() -> None:
    # The list of the first is made anew before the search for the second fails.
    moving, other = (bulk("Si", cubic=True) for _ in range(2))
    neighbors = BatchNeighbors(CUTOFF, SKIN)
    sizes = np.array([8, 8])

    def find() -> NeighborList:
        positions = np.vstack([moving.positions, other.positions])
        cells = np.stack([moving.cell.array, other.cell.array])
        return neighbors.edges(positions, sizes, cells, np.ones(3, bool))

    find()
    start = moving.positions.copy()
    moving.positions[3] += 2 * SKIN
    other.positions[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        find()
    moving.positions[:] = start
    other.positions[3] = start[3] + 2 * SKIN  # needs a search, so that the lists are joined anew
    edges = find()
    mine = edges.receivers < 8
    found = NeighborList(edges.senders[mine], edges.receivers[mine], edges.shifts[mine])
    fresh = neighbor_list(start, moving.cell.array, moving.pbc, CUTOFF)
    np.testing.assert_allclose(lengths(moving, found), lengths(moving, fresh), atol=1e-9)


@pytest.mark.parametrize("changing_cell", [False, True])
def test_md_with_skin_equals_md_without(small_model: Path, changing_cell: bool) -> None:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.rattle(0.05, seed=3)
    atoms.calc = TesseralCalculator(small_model, device="cpu", dtype="float64", skin=0.5)
    oracle = TesseralCalculator(small_model, device="cpu", dtype="float64", skin=0.0)
    rng = np.random.default_rng(0)
    dynamics = Langevin(
        atoms, 2 * units.fs, temperature_K=1500, friction=0.02, fixcm=False, rng=rng
    )
    steps = 40
    for step in range(steps):
        dynamics.run(1)
        if changing_cell:  # breathing and shear, as under a barostat
            deformation = np.eye(3) * (1 + 0.004 * np.sin(step)) + 0.002 * np.eye(3, k=1)
            atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        again = atoms.copy()
        again.calc = oracle
        np.testing.assert_allclose(atoms.get_forces(), again.get_forces(), atol=1e-10)
        np.testing.assert_allclose(atoms.get_stress(), again.get_stress(), atol=1e-12)
    assert atoms.calc.neighbors.builds < steps / 2 < oracle.neighbors.builds
