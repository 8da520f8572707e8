"""Mean of several potentials as an ASE calculator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces

from tesseral.calculators.ase import TesseralCalculator
from tesseral.calculators.mean import MeanCalculator
from tesseral.deploy.modelfile import load_model, save_model


def test_energies_forces_and_stresses_are_means(small_model: Path, stable_model: Path) -> None:
    models = [small_model, stable_model]
    atoms = bulk("SiC", "zincblende", a=4.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    single = [TesseralCalculator(path, device="cpu") for path in models]
    mean = MeanCalculator(models, device="cpu")
    for name in ("energy", "free_energy", "energies", "forces", "stress"):
        each = [np.asarray(calculator.get_property(name, atoms)) for calculator in single]
        assert np.abs(each[0] - each[1]).max() > 1e-4
        np.testing.assert_allclose(mean.get_property(name, atoms), sum(each) / 2, rtol=1e-12)


def test_forces_are_the_gradient_after_atoms_move(small_model: Path, stable_model: Path) -> None:
    atoms = bulk("SiC", "zincblende", a=4.4)
    atoms.calc = MeanCalculator([small_model, stable_model], device="cpu", dtype="float64")
    atoms.get_forces()
    atoms.rattle(0.1, seed=2)
    numerical = calculate_numerical_forces(atoms, eps=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), numerical, atol=1e-5)


def test_a_molecule_has_no_stress(small_model: Path) -> None:
    atoms = molecule("CH4")
    del atoms[[1, 2, 3, 4]]
    with pytest.raises(PropertyNotImplementedError):
        MeanCalculator([small_model], device="cpu").get_property("stress", atoms)


def test_without_models_it_is_refused() -> None:
    with pytest.raises(ValueError, match="`models` is empty"):
        MeanCalculator([])


def test_different_levels_of_theory_are_refused(stable_model: Path, tmp_path: Path) -> None:
    potential, card = load_model(stable_model)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, theory in zip(paths, ("PBE", "PBE0"), strict=True):
        save_model(path, potential, replace(card, training={"theory": theory}))
    assert MeanCalculator(paths[0], device="cpu").theory == "PBE"
    assert MeanCalculator([paths[0], stable_model], device="cpu").theory == ""
    with pytest.raises(ValueError, match="PBE and PBE0"):
        MeanCalculator(paths, device="cpu")
