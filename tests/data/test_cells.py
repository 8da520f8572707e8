"""Cells without a volume, and vectors for directions that are not periodic."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tesseral.calculators.properties.atoms import has_stress, is_crystal
from tesseral.data.cells import THINNEST, complete_cell, has_volume
from tesseral.data.neighbors import neighbor_list
from tesseral.data.structures import make_structure, structure_from_atoms

ALL = np.ones(3, dtype=bool)
SIDES = {"thin": (0.999 * THINNEST, False), "thick": (1.001 * THINNEST, True)}


@pytest.mark.parametrize(("thickness", "there"), SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 0, 1), (0, 0, 1)])
def test_every_check_has_the_same_threshold(thickness, there, pbc):
    pbc = np.array(pbc, dtype=bool)
    cell = np.diag([50.0, 0.0 if not pbc[1] else 40.0, thickness])
    assert has_volume(cell, pbc) == there
    structure = {"numbers": [14], "positions": [[0, 0, 0]], "cell": cell, "pbc": pbc}
    searched = {"positions": [[0, 0, 0]], "cell": cell, "pbc": pbc, "cutoff": 0.02}
    if there:
        make_structure(**structure)
        assert len(neighbor_list(**searched).senders) == 2  # its two nearest images
    else:
        with pytest.raises(ValueError, match="no volume"):
            make_structure(**structure)
        with pytest.raises(ValueError, match="linearly dependent"):
            neighbor_list(**searched)
    atoms = Atoms("Si", cell=cell, pbc=pbc)
    assert has_stress(atoms) == is_crystal(atoms) == (there and pbc.all())


def test_a_stress_needs_a_volume():
    atoms = Atoms("Si", cell=np.diag([50.0, 40.0, 3.0]), pbc=True)
    atoms.calc = SinglePointCalculator(
        atoms, energy=1.0, forces=np.zeros((1, 3)), stress=np.ones(6)
    )
    assert np.isfinite(structure_from_atoms(atoms).stress).all()
    assert has_stress(Atoms("Si", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=[1, 1, 0])) is False


def test_the_threshold_is_a_length_in_any_orientation():
    """A large determinant does not hide a short vector, and a turned or skewed cell is the same."""
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for thickness, there in SIDES.values():
        cell = np.diag([1e3, 1e3, thickness])
        assert abs(np.linalg.det(cell)) > 1e3
        assert has_volume(cell @ turned, ALL) == there


def test_many_cells_at_once():
    cells = np.stack([np.eye(3), np.zeros((3, 3)), np.diag([3.0, 3.0, 0.0])])
    assert has_volume(cells).tolist() == [True, False, False]
    assert has_volume(cells, [True, True, False]).tolist() == [True, False, True]
    assert has_volume(cells, [False] * 3).tolist() == [True, True, True]


@pytest.mark.parametrize("periodic", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 1, 1)])
def test_a_completed_cell_has_normal_vectors_of_length_1_and_is_right_handed(periodic):
    pbc = np.array(periodic, dtype=bool)
    for seed in range(20):
        cell = np.random.default_rng(seed).normal(size=(3, 3))
        box = complete_cell(cell, pbc)
        np.testing.assert_array_equal(box[pbc], cell[pbc])
        added = box[~pbc]
        np.testing.assert_allclose(added @ added.T, np.eye(len(added)), atol=1e-12)
        np.testing.assert_allclose(added @ cell[pbc].T, 0, atol=1e-12)
        assert np.linalg.det(box) > 0


def test_a_full_cell_stays_as_it_is():
    cell = np.diag([1.0, -2.0, 3.0])
    np.testing.assert_array_equal(complete_cell(cell, ALL), cell)
