"""Predictions of a whole dataset beside those of its structures one by one."""

from dataclasses import replace

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from tesseral.data.loading.datasets import labelled_graph
from tesseral.data.store.read import open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import atoms_from_structure, structure_from_atoms
from tesseral.deploy.modelfile import ModelCard, build_potential, load_model, save_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.derivatives import predict
from tesseral.training.evaluate import EvaluateConfig, energy_shifts, evaluate, evaluate_file

CARD = ModelCard(
    config=FacetConfig(cutoff=3.6, layers=1, channels=4, grid_channels=4, l_max=1),
    elements=(13, 29),
    reference_energies=(-1.0, -2.0),
    energy_scale=1.0,
    mean_neighbors=10.0,
    dtype="float64",
)


@pytest.fixture
def store(emt_files):
    return open_store(emt_files[0])


@pytest.fixture
def potential():
    return build_potential(CARD, "reference")


def test_values_are_those_of_single_structures(store, potential):
    found = evaluate(potential, store, CARD.elements, batch_edges=500)
    for row, structure in enumerate(store):
        single = predict(potential, labelled_graph(structure, CARD.elements, 3.6).graph)
        mine = found.structure == row
        assert found.numbers[mine].tolist() == structure.numbers.tolist()
        assert found.energy[row] == pytest.approx(float(single.energy[0].detach()), abs=1e-9)
        np.testing.assert_allclose(found.forces[mine], single.forces.detach(), atol=1e-9)
        np.testing.assert_array_equal(found.forces_label[mine], structure.forces)
        assert found.energy_label[row] == structure.energy


def test_errors_are_those_of_the_values(store, potential):
    found = evaluate(potential, store, CARD.elements)
    off = np.abs(found.energy - found.energy_label) / found.n_atoms
    assert found.errors["energy_per_atom"]["mae"] == pytest.approx(1e3 * off.mean())
    forces = np.abs(found.forces - found.forces_label)
    assert found.errors["forces"]["mae"] == pytest.approx(1e3 * forces.mean())
    stress = np.abs(found.stress - found.stress_label)
    assert found.errors["stress"]["mae"] == pytest.approx(np.nanmean(stress))


def test_errors_need_no_values(store, potential):
    kept = evaluate(potential, store, CARD.elements)
    bare = evaluate(potential, store, CARD.elements, keep=False)
    assert bare.errors == kept.errors
    assert bare.forces.shape == (0, 3) and len(bare.energy) == len(bare.numbers) == 0


def test_progress_ends_with_all_structures(store, potential):
    seen = []
    evaluate(potential, store, CARD.elements, batch_edges=1, show=lambda *step: seen.append(step))
    assert seen == [(done, len(store)) for done in range(1, len(store) + 1)]


def test_an_unknown_element_is_named(store):
    card = replace(CARD, elements=(13, 14))
    with pytest.raises(ValueError, match="Cu"):
        evaluate(build_potential(card), store, card.elements)


def test_gradients_of_the_weights_stay_on(store, potential):
    evaluate(potential, store, CARD.elements)
    assert all(weight.requires_grad for weight in potential.parameters())
    assert potential.training and torch.is_grad_enabled()


def test_another_zero_of_energy_is_found_and_can_be_corrected(store, potential):
    plain = evaluate(potential, store, CARD.elements)
    shifts = plain.errors["energy_shifts"]
    print(shifts)
    moved = evaluate(potential, store, CARD.elements, shift_energies=True)
    after = moved.errors["energy_per_atom"]
    assert after == plain.errors["shifted_energy_per_atom"]
    off = np.abs(moved.energy - moved.energy_label) / moved.n_atoms
    assert after["mae"] == pytest.approx(1e3 * off.mean())
    counts = store.compositions() @ np.array([shifts["Al"], shifts["Cu"]])
    np.testing.assert_allclose(plain.energy - moved.energy, counts, atol=1e-9)
    assert moved.errors["forces"] == plain.errors["forces"]


def test_shifts_are_exact_where_nothing_else_differs():
    counts = np.array([[2, 0], [1, 3], [4, 4], [0, 6]])
    shifts = energy_shifts(counts, counts @ np.array([-100.0, 31.5]))
    np.testing.assert_allclose(shifts, [-100.0, 31.5], atol=1e-3)
    assert energy_shifts(counts[:3], np.ones(3)) is None


def test_labelled_extxyz_is_evaluated_as_a_dataset_is(emt_files, tmp_path):
    store = open_store(emt_files[0])
    ase.io.write(
        tmp_path / "set.xyz", [atoms_from_structure(one) for one in store], format="extxyz"
    )
    model = tmp_path / "model.safetensors"
    save_model(model, build_potential(CARD, "reference"), CARD)
    one, other = (
        evaluate_file(EvaluateConfig(model=str(model), data=str(file)))
        for file in (emt_files[0], tmp_path / "set.xyz")
    )
    assert one["energy_per_atom"]["mae"] == pytest.approx(other["energy_per_atom"]["mae"], 1e-6)
    assert one["stress"]["mae"] == pytest.approx(other["stress"]["mae"], 1e-6)


def test_errors_name_the_given_file_and_not_a_temporary_one(tmp_path):
    atoms = ase.build.bulk("Ni", cubic=True)
    atoms.calc = SinglePointCalculator(
        atoms, energy=0.0, forces=np.zeros((4, 3)), stress=np.zeros(6)
    )
    ase.io.write(tmp_path / "nickel.xyz", atoms, format="extxyz")
    model = tmp_path / "model.safetensors"
    save_model(model, build_potential(CARD, "reference"), CARD)
    with pytest.raises(ValueError, match=r"nickel\.xyz has Ni") as found:
        evaluate_file(EvaluateConfig(model=str(model), data=str(tmp_path / "nickel.xyz")))
    assert ".h5" not in str(found.value)


def test_structures_unlike_the_data_are_told_apart(knowing_model, tmp_path):
    files = tmp_path / "near.xyz", tmp_path / "far.xyz"
    for file, rattle in zip(files, (0.01, 0.3), strict=True):
        for seed in range(3):
            atoms = ase.build.bulk("Si", cubic=True)
            atoms.rattle(rattle, seed=seed)
            atoms.calc = SinglePointCalculator(atoms, energy=0.0)
            ase.io.write(file, atoms, append=True)
    near, far = map(str, files)
    areas = [
        evaluate_file(EvaluateConfig(model=str(knowing_model), data=one, outside=other))[
            "uncertainty"
        ]["roc_area"]
        for one, other in ((near, far), (far, near), (near, near))
    ]
    assert areas[0] + areas[1] == pytest.approx(1.0)
    assert areas[2] == pytest.approx(0.5)
    assert areas[0] in (0.0, 1.0)


def test_telling_apart_needs_the_uncertainty(stable_model, emt_files):
    data = str(emt_files[0])
    with pytest.raises(ValueError, match="which `outside` needs"):
        evaluate_file(EvaluateConfig(model=str(stable_model), data=data, outside=data))


@pytest.fixture
def labelled_silicon(tmp_path):
    """Rattled cells of silicon with some labels."""
    path = tmp_path / "silicon.h5"
    cells = []
    for seed in range(4):
        atoms = ase.build.bulk("Si", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.ones((8, 3)))
        cells.append(structure_from_atoms(atoms))
    write_store(path, cells)
    return open_store(path)


def test_pairs_closer_than_in_the_training_set_are_named(knowing_model, labelled_silicon):
    potential, card = load_model(knowing_model)
    known = {**card.uncertainty, "closest": [4.0, 4.0, 4.0]}
    found = evaluate(potential, labelled_silicon, card.elements, known=known)
    words = found.errors["uncertainty"]["closer"]
    assert words.startswith("no Si–Si pair closer than 4.00 Å in the training set; found 2.")
    assert "in structure" in words


def test_expected_errors_of_energies_are_compared(knowing_model, labelled_silicon):
    potential, card = load_model(knowing_model)
    known = {**card.uncertainty, "energy_bound": 1e9}
    found = evaluate(potential, labelled_silicon, card.elements, known=known)
    energies = found.errors["uncertainty"]["energy"]
    assert energies["coverage"] == 1.0
    assert energies["structures"] == 4
    assert np.isfinite(found.energy_uncertainty).all()
