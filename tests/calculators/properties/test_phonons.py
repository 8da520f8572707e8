"""Phonons of EMT crystals against ASE's own, and folding of q points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.phonons import Phonons

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.properties.phonons import (
    bands,
    commensurate_points,
    force_constants,
    frequencies,
    lowest_frequency,
)

X = (0.5, 0.5, 0.0)
THZ_PER_EV = 241.79893


@pytest.fixture(scope="module")
def aluminium() -> Atoms:
    atoms = bulk("Al", "fcc", a=3.9943)
    atoms.calc = EMT()
    return atoms


def test_frequencies_are_those_of_ase(aluminium: Atoms, tmp_path: Path) -> None:
    constants = force_constants(aluminium, length=9.0)
    other = Phonons(aluminium, EMT(), supercell=constants.repeats, delta=0.01, name=tmp_path / "ph")
    other.run()
    other.read(acoustic=True)
    expected = np.sort(other.band_structure(np.array([X]), verbose=False)[0]) * THZ_PER_EV
    assert frequencies(constants, X)[0] == pytest.approx(expected, rel=0.01)


def test_the_hessian_gives_what_displacements_give(stable_model: Path) -> None:
    atoms = bulk("SiC", "zincblende", a=5.42)
    atoms.calc = TesseralCalculator(stable_model, device="cpu", dtype="float64")
    points = [X, (0.1, 0.2, 0.3)]
    found, expected = (
        force_constants(atoms, length=6.0, displacement=displacement)
        for displacement in (None, 1e-4)
    )
    assert (found.n_displacements, expected.n_displacements) == (0, 2)
    highest = frequencies(expected, points)
    np.testing.assert_allclose(frequencies(found, points), highest, atol=1e-4 * highest.max())


def test_acoustic_modes_vanish_and_the_crystal_is_stable(aluminium: Atoms) -> None:
    constants = force_constants(aluminium, length=6.0)
    np.testing.assert_allclose(frequencies(constants, (0, 0, 0))[0], 0, atol=1e-3)
    assert lowest_frequency(constants, mesh=4) > -1e-3


def test_an_unstable_crystal_has_imaginary_modes() -> None:
    atoms = bulk("Cu", "bcc", a=2.9)
    atoms.calc = EMT()
    assert lowest_frequency(force_constants(atoms, length=6.0), mesh=4) < -0.5


def test_the_path_starts_at_gamma(aluminium: Atoms) -> None:
    path = bands(force_constants(aluminium, length=5.0), points=40)
    assert path.labels[0] == "G"
    assert path.frequencies.shape == (len(path.qpoints), 3)
    assert path.ticks[-1] == pytest.approx(path.distances[-1])


def test_points_that_fold_to_gamma_of_the_cube() -> None:
    primitive = bulk("Al", "fcc", a=4.0).cell.array
    points = commensurate_points(primitive, 4.0 * np.eye(3))
    assert len(points) == 4
    np.testing.assert_allclose(points @ np.linalg.inv(primitive).T * 4.0 % 1.0 % 1.0, 0, atol=1e-9)


def test_a_molecule_is_refused() -> None:
    with pytest.raises(ValueError, match="need a crystal"):
        force_constants(Atoms("Al"))
