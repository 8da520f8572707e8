"""Structures among which a round selects."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

from tesseral.calculators.properties.atoms import closest_approach
from tesseral.calculators.simulations.structures import Job
from tesseral.learning import explore as module
from tesseral.learning.config import ExploreConfig
from tesseral.learning.explore import APART, Run, at_random, distorted, explore, runs_of

COPPER = bulk("Cu", cubic=True)


def job(atoms: Atoms, name: str = "cu") -> Job:
    return Job(name, f"{name}.cif", 0, atoms, "")


def test_copies_are_strained_and_rattled_within_the_limits():
    copies = list(distorted(COPPER, 50, 0.05, 0.1, np.random.default_rng(0)))
    strains = [copy.cell.array @ np.linalg.inv(COPPER.cell.array) - np.eye(3) for copy in copies]
    assert 0.04 < np.abs(strains).max() <= 0.05
    moved = [copy.positions - COPPER.get_scaled_positions() @ copy.cell.array for copy in copies]
    assert 0.05 < np.sqrt(np.square(moved).mean(axis=(1, 2)).max()) < 0.15
    assert len({copy.cell.array.tobytes() for copy in copies}) == 50


@pytest.mark.parametrize("atoms", [fcc111("Cu", (1, 1, 3), vacuum=8), molecule("H2O")])
def test_vacuum_is_not_strained(atoms):
    (copy,) = distorted(atoms, 1, 0.05, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(copy.cell.array, atoms.cell.array)


@pytest.mark.parametrize("atoms", [bulk("NaCl", "rocksalt", a=5.6, cubic=True), molecule("H2O")])
def test_random_places_are_apart(atoms):
    made = at_random(atoms, np.random.default_rng(1))
    assert closest_approach(made) >= APART
    assert sorted(made.numbers) == sorted(atoms.numbers)
    assert (made.pbc == atoms.pbc).all() and made.cell.rank == atoms.cell.rank


def test_runs_of_each_start_structure():
    options = ExploreConfig(temperatures=[300.0], pressures=[2.0], distorted=3, random=1)
    jobs = [job(COPPER), job(molecule("H2O"), "water")]
    names = [run.name for run in runs_of(jobs, options, dynamics=True)]
    # No pressure for a molecule.
    assert names == [
        *("cu-distorted", "cu-random", "cu-md-300K", "cu-md-300K-2GPa"),
        *("water-distorted", "water-random", "water-md-300K"),
    ]
    names = [run.name for run in runs_of(jobs[:1], options, dynamics=False)]
    assert names == ["cu-distorted", "cu-random"]


def frames_of(run: Run, options: ExploreConfig, folder) -> list[Atoms]:
    return list(explore([run], EMT(), options, folder, seed=0))


def test_frames_of_dynamics(tmp_path):
    options = ExploreConfig(time=0.05, every=10)
    frames = frames_of(Run("cu-md", COPPER, 300.0), options, tmp_path)
    assert len(frames) == 5  # the start is known
    assert {frame.info["config_type"] for frame in frames} == {"md-300K"}
    assert {frame.info["group"] for frame in frames} == {"cu-md"}
    np.testing.assert_array_equal(frames[0].cell.array, COPPER.cell.array)


def test_the_cell_changes_at_constant_pressure(tmp_path):
    run = Run("cu-md", COPPER, 300.0, 5.0)
    frames = frames_of(run, ExploreConfig(time=0.05, every=10), tmp_path)
    assert len({frame.get_volume() for frame in frames}) == 5
    assert frames[0].info["config_type"] == "md-300K-5GPa"


def test_a_run_starts_again_at_a_structure_that_the_model_does_not_know(tmp_path, monkeypatch):
    steps = iter(["", "", "", "atom 3", "", "atom 2"] + 100 * [""])
    monkeypatch.setattr(module, "strange_atoms", lambda *_: next(steps))
    frames = frames_of(Run("cu-md", COPPER, 300.0), ExploreConfig(time=0.05, every=40), tmp_path)
    assert len(frames) == 4  # those two, one after 40 steps, and the last
    assert not np.allclose(frames[0].positions, frames[1].positions)


def test_structures_with_close_atoms_are_left_out(tmp_path):
    options = ExploreConfig(distorted=20, strain=0.0, rattle=0.6, closest=0.8)
    frames = list(explore([Run("cu", COPPER, kind="distorted")], None, options, tmp_path, seed=0))
    assert 0 < len(frames) < 20
    assert min(closest_approach(frame) for frame in frames) >= 0.8


def test_complete_runs_are_not_run_again(tmp_path):
    runs = [Run(name, COPPER, kind="distorted") for name in ("one", "two")]
    options = ExploreConfig(distorted=2)
    first = list(explore(runs[:1], None, options, tmp_path, seed=0))
    changed = tmp_path.joinpath("one.extxyz").stat().st_mtime_ns
    both = list(explore(runs, None, options, tmp_path, seed=0))
    assert tmp_path.joinpath("one.extxyz").stat().st_mtime_ns == changed
    assert len(both) == 4
    np.testing.assert_array_equal(both[0].positions, first[0].positions)
