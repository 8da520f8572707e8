import numpy as np
import pytest
from pymatgen.core import Lattice, Molecule
from pymatgen.core import Structure as Crystal

from tesseral.data.sources.pymatgen import pymatgen_from_structure, structure_from_pymatgen
from tesseral.data.structures import make_structure


def test_crystal_with_labels():
    crystal = Crystal(Lattice.cubic(4.0), ["Si", "C"], [[0, 0, 0], [0.25, 0.25, 1.25]])
    structure = structure_from_pymatgen(
        crystal, energy=-1.0, forces=np.ones((2, 3)), stress=np.eye(3)
    )
    assert structure.numbers.tolist() == [14, 6]
    np.testing.assert_allclose(structure.positions[1], [1, 1, 5])
    assert structure.pbc.all()
    assert (structure.energy, structure.forces[0, 0], structure.stress[0, 0]) == (-1.0, 1.0, 1.0)


def test_missing_labels_are_nan():
    structure = structure_from_pymatgen(Molecule(["H", "H"], [[0, 0, 0], [0, 0, 0.7]]))
    assert not structure.pbc.any()
    assert np.isnan(structure.energy) and np.isnan(structure.forces).all()


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_round_trip(pbc):
    cell = np.array([[4.0, 0, 0], [1, 5, 0], [0, 1, 6]])
    structure = make_structure([6, 14], [[0.1, 0, 0], [1.0, 2, 3]], cell=cell, pbc=pbc)
    back = structure_from_pymatgen(pymatgen_from_structure(structure))
    assert back.pbc.tolist() == list(pbc)
    np.testing.assert_allclose(back.positions, structure.positions, atol=1e-12)
    if any(pbc):
        np.testing.assert_allclose(back.cell, cell)


def test_disordered_sites_are_refused():
    crystal = Crystal(Lattice.cubic(4.0), [{"Si": 0.5, "C": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match="shared by several elements"):
        structure_from_pymatgen(crystal)
