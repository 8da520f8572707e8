"""Crystals without periodic directions are found; molecules and clusters are not taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.cluster import Octahedron

from tesseral.data.boundaries import is_cut_out
from tesseral.data.doctor.boundaries import check_boundaries
from tesseral.data.doctor.sample import read_sample
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import Structure, structure_from_atoms


def without_pbc(atoms: Atoms) -> Structure:
    atoms = atoms.copy()
    atoms.pbc = False
    return structure_from_atoms(atoms)


def amorphous() -> Atoms:
    atoms = bulk("Si", cubic=True).repeat(2)
    atoms.rattle(0.25, seed=0)
    return atoms


CRYSTALS = {
    "SiC": bulk("SiC", "zincblende", a=4.36, cubic=True),
    "copper": bulk("Cu", cubic=True).repeat(2),
    "sodium": bulk("Na", cubic=True).repeat(2),
    "salt": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "hcp": bulk("Mg").repeat((2, 2, 1)),
    "disordered": amorphous(),
}


def boxed(atoms: Atoms, vacuum: float) -> Atoms:
    atoms = atoms.copy()
    atoms.center(vacuum=vacuum)
    return atoms


OTHERS = {
    "benzene in a box": boxed(molecule("C6H6"), 4.0),
    "benzene in a tight box": boxed(molecule("C6H6"), 1.5),
    "ethanol without a cell": molecule("CH3CH2OH"),
    "cluster in a box": boxed(Octahedron("Cu", 5), 4.0),
    "cluster in its bounding box": boxed(Octahedron("Cu", 5), 0.0),
    "sheet": graphene(size=(3, 3, 1), vacuum=6.0),
    "slab": boxed(bulk("Cu", cubic=True).repeat((2, 2, 3)), 3.0),
}


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystals_are_found(name: str) -> None:
    assert is_cut_out(*without_pbc(CRYSTALS[name])[:4])


@pytest.mark.parametrize("name", OTHERS)
def test_molecules_and_clusters_are_not(name: str) -> None:
    assert not is_cut_out(*without_pbc(OTHERS[name])[:4])


def test_periodic_crystals_are_right() -> None:
    atoms = CRYSTALS["SiC"].copy()
    for pbc in (True, (True, True, False)):
        atoms.pbc = pbc
        assert not is_cut_out(*structure_from_atoms(atoms)[:4])


def test_the_finding_names_the_structures(tmp_path: Path) -> None:
    structures = [without_pbc(OTHERS["sheet"]), without_pbc(CRYSTALS["hcp"])]
    structures = [s._replace(energy=-1.0, forces=np.zeros_like(s.positions)) for s in structures]
    write_store(tmp_path / "a.h5", structures)
    (finding,) = check_boundaries(read_sample(open_store(tmp_path / "a.h5"), 10**9))
    assert (finding.severity, finding.rows) == ("warning", (1,))
    assert "without periodic directions" in finding.found
