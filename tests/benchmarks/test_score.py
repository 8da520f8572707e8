"""Scores of universal potentials: errors against labels, and properties of crystals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from benchmarks.universal import __main__ as universal
from benchmarks.universal import physics, score
from benchmarks.universal.predictions import Predictions


def frame(formula: str, energy: float | None, **info: object) -> Atoms:
    atoms = Atoms(formula, np.arange(3 * len(Atoms(formula))).reshape(-1, 3), info=dict(info))
    labels = {"forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
    if energy is not None:
        atoms.calc = SinglePointCalculator(atoms, energy=energy, **labels)
    return atoms


def test_errors_are_lengths_of_vectors_and_shifts_are_none() -> None:
    frames = [frame("Cu2", -2.0), frame("CuO", -3.0), frame("O2", -4.0), frame("CuO2", -5.0)]
    exact = np.array([atoms.get_potential_energy() for atoms in frames])
    counts = np.array([[2, 0], [1, 1], [0, 2], [1, 2]])
    forces = np.tile([0.03, 0.04, 0.0], (9, 1))
    found = Predictions(exact + counts @ [7.0, -3.0], forces, np.full((4, 6), 0.5 * units.GPa))
    errors = score.errors(frames, found)
    np.testing.assert_allclose(errors.energy, 1e3 * np.abs([7, 2, 3, 1 / 3]))
    np.testing.assert_allclose(errors.shifted, 0, atol=1e-9)
    np.testing.assert_allclose(errors.forces, 50)
    np.testing.assert_allclose(errors.stress, 0.5)
    some = errors.of(np.array([True, False, False, True]))
    assert len(some.energy) == 2 and len(some.forces) == 5


def test_missing_labels_are_no_errors() -> None:
    frames = [frame("Cu2", None), frame("Cu2", -1.0)]
    found = Predictions(np.array([0.0, -1.2]), np.ones((4, 3)), np.full((2, 6), np.nan))
    errors = score.errors(frames, found)
    assert np.isnan(errors.energy[0]) and errors.energy[1] == pytest.approx(100)
    assert np.isnan(errors.forces[:2]).all() and np.isfinite(errors.forces[2:]).all()
    texts = score.texts(errors)
    assert texts[:1] + texts[4:6] == ["100", "1,732", "1,732"]
    assert texts[-3:] == ["–", "–", "–"]


def test_groups_are_kinds_and_ranges_above_the_hull() -> None:
    frames = [
        frame("Cu", 0.0, config_type="bulk", e_above_hull=0.0),
        frame("Cu", 0.0, config_type="slab", e_above_hull=0.1),
        frame("Cu", 0.0, config_type="bulk"),
    ]
    found = {name: chosen.tolist() for name, chosen in score.groups(frames).items()}
    assert found == {
        "bulk": [True, False, True],
        "slab": [False, True, False],
        "0 to 0.05 eV/atom above the hull": [True, False, False],
        "0.05 to 0.2 eV/atom above the hull": [False, True, False],
    }
    assert score.groups([frame("Cu", 0.0)]) == {}


def test_a_model_is_scored_on_a_file(small_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.extxyz"
    frames = []
    for distance in np.linspace(1.6, 2.2, 6):
        atoms = Atoms("SiC", [(0, 0, 0), (distance, 0, 0)], cell=[8.0] * 3, pbc=True)
        labels = {"forces": np.zeros((2, 3)), "stress": np.zeros(6)}
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, **labels)
        frames.append(atoms)
    write(path, frames)
    words = ["score", str(path), "--models", str(small_model), "--output", str(tmp_path / "out")]
    assert universal.main([*words, "--number", "5"]) == 0
    text = (tmp_path / "out" / "score.md").read_text()
    assert f"| {tmp_path.name}/set | {small_model.stem} | 5 |" in text
    assert universal.main(words[:2] + words[4:]) == 2


def test_there_are_50_crystals_with_references() -> None:
    made = physics.crystals()
    names = {crystal.name for crystal in made}
    assert len(made) == len(names) == 50
    for table in (physics.ELASTIC, physics.OPTICAL, physics.VACANCY):
        assert set(table) <= names
    for crystal in made:
        volume = crystal.atoms.get_volume() / len(crystal.atoms)
        assert volume == pytest.approx(crystal.volume)
        assert 1 < crystal.modulus < 500
    copper = next(crystal for crystal in made if crystal.name == "Cu")
    assert copper.volume == pytest.approx(3.63**3 / 4, rel=0.01)  # a is 3.63 Å with PBE


def test_references_agree_with_the_bulk_moduli_of_experiment() -> None:
    """Bulk moduli of PBE are within 25% of those of the elastic constants of experiment."""
    own = {crystal.name: crystal.modulus for crystal in physics.crystals()}
    for name, (c11, c12, _) in physics.ELASTIC.items():
        assert own[name] == pytest.approx((c11 + 2 * c12) / 3, rel=0.25), name


def test_properties_are_those_of_the_calculator() -> None:
    """EMT is fitted to the lattice constant and the bulk modulus of copper."""
    copper = next(crystal for crystal in physics.crystals() if crystal.name == "Cu")
    found = physics.properties(copper, EMT())
    assert found["volume"] == pytest.approx(3.59**3 / 4, rel=0.01)
    assert found["modulus"] == pytest.approx(134, rel=0.05)
    c11, c12, _ = found["elastic"]
    assert (c11 + 2 * c12) / 3 == pytest.approx(found["modulus"], rel=0.03)
    assert 0.5 < found["vacancy"] < 1.5
    texts = physics.summary_texts([copper], {"Cu": found})
    assert texts[-1] == "–" and texts[2].startswith("Cu -")
