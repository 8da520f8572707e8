"""Isolated atoms in boxes with and without periodic directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tesseral.data.doctor.checkup import check_set
from tesseral.data.doctor.sample import read_sample
from tesseral.data.isolated import is_isolated, isolated_rows
from tesseral.data.loading.splits import split_store
from tesseral.data.loading.statistics import compute_statistics
from tesseral.data.store.read import Store, open_store, write_store
from tesseral.data.structures import make_structure

BOX = 20.0 * np.eye(3)
FCC = 1.8 * (1 - np.eye(3))


@pytest.mark.parametrize(
    ("cell", "pbc", "expected"),
    [
        (np.zeros((3, 3)), False, True),
        (BOX, True, True),
        (FCC, True, False),
        (FCC, False, True),
        (np.diag([20.0, 20.0, 3.0]), (True, True, False), True),
        (np.diag([20.0, 20.0, 3.0]), (False, False, True), False),
        (np.array([[20.0, 0, 0], [19.0, 3, 0], [0, 0, 20]]), True, False),  # a short difference
    ],
)
def test_an_atom_without_images_within_the_cutoff(cell, pbc, expected: bool) -> None:
    assert is_isolated(1, cell, np.broadcast_to(pbc, 3), 5.0) == expected
    assert not is_isolated(2, cell, np.broadcast_to(pbc, 3), 5.0)


@pytest.fixture
def boxed(tmp_path: Path) -> Store:
    """Si and C atoms in periodic boxes, with labels as a plane-wave code gives, and 12 crystals."""
    rng = np.random.default_rng(0)
    structures = [
        make_structure(
            [z], [[3.0, 2.0, 1.0]], cell=BOX, energy=energy, forces=[[0, 0, 0]], stress=1e-6 * BOX
        )
        for z, energy in ((14, -0.8), (6, -1.2))
    ]
    for _ in range(12):
        positions = np.array([[0, 0, 0], [1.09, 1.09, 1.09]]) + 0.02 * rng.normal(size=(2, 3))
        force = rng.normal(size=3)
        structures.append(
            make_structure(
                [6, 14],
                positions,
                cell=2.18 * (1 - np.eye(3)),
                energy=-15 + 0.1 * rng.normal(),
                forces=[force, -force],
                stress=0.01 * np.eye(3),
            )
        )
    write_store(tmp_path / "boxed.h5", structures)
    return open_store(tmp_path / "boxed.h5")


def test_their_energies_are_the_reference_energies(boxed: Store) -> None:
    statistics = compute_statistics(boxed, range(len(boxed)), 5.0)
    assert statistics.reference_energies == (-1.2, -0.8)
    assert len(statistics.binding_energies) == 2


def test_they_are_for_training(boxed: Store) -> None:
    split = split_store(boxed, method="random", fraction=0.5, seed=0)
    assert {0, 1} <= set(split.train.tolist())


def test_the_check_has_no_advice_about_them(boxed: Store) -> None:
    findings = check_set(read_sample(boxed, 10**9), cutoff=5.0).findings
    assert not {"cutoff", "missing labels", "zero labels"} & {one.check for one in findings}


def test_rows_are_those_asked_for(boxed: Store) -> None:
    assert isolated_rows(boxed, [5, 1, 0]).tolist() == [False, True, True]
    assert not isolated_rows(boxed, [0], cutoff=25.0).any()
