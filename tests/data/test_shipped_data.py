"""The dataset that comes with the package is what its README says."""

import json
import warnings
from importlib.resources import files

import ase.io
import numpy as np
import pytest

from benchmarks.shipped_data.build import build
from tesseral.data.loading.datamodule import DataConfig, PotentialDataModule
from tesseral.data.loading.statistics import compute_statistics
from tesseral.data.store.read import open_store
from tesseral.data.store.verify import verify_store
from tesseral.data.units import EV_PER_A3_IN_GPA

FOLDER = files("tesseral.data.examples")


@pytest.fixture(scope="module", params=[("sic_pbe.h5", 258), ("sic_pbe_test.h5", 37)])
def example(request):
    name, count = request.param
    store = open_store(FOLDER / name)
    assert len(store) == count
    return store


def test_is_undamaged(example):
    verify_store(example)


def test_says_where_it_comes_from(example):
    assert "GPAW" in example.attributes["source"]
    assert "PBE" in example.attributes["theory"]
    assert example.attributes["license"] == "CC0-1.0"


def test_every_label_is_there(example):
    for structure in example:
        assert structure.pbc.all()
        assert np.isfinite(structure.energy)
        assert np.isfinite(structure.forces).all()
        assert np.isfinite(structure.stress).all()
        assert structure.config_type.startswith(("SiC", "Si-", "C-"))


def test_forces_add_up_to_nothing(example):
    sums = [np.abs(structure.forces.sum(axis=0)).max() for structure in example]
    assert max(sums) < 0.05


def test_the_parts_share_no_structure():
    first, second = (
        {structure.positions.tobytes() for structure in open_store(FOLDER / name)}
        for name in ("sic_pbe.h5", "sic_pbe_test.h5")
    )
    assert not first & second


def test_the_stress_is_the_derivative_of_the_energy():
    """Unstrained cubic SiC cells of several volumes: P = -dE/dV, in sign and size."""
    cells = [
        structure
        for name in ("sic_pbe.h5", "sic_pbe_test.h5")
        for structure in open_store(FOLDER / name)
        if structure.config_type == "SiC-eos"
    ]
    cells.sort(key=lambda structure: np.linalg.det(structure.cell))
    volumes = np.array([np.linalg.det(structure.cell) for structure in cells])
    energies = np.array([structure.energy for structure in cells])
    stress = np.array([np.trace(structure.stress) / 3 for structure in cells])
    fit = np.polynomial.Polynomial.fit(volumes, energies, 5)
    expected = fit.deriv()(volumes)
    error = np.abs(stress - expected) * EV_PER_A3_IN_GPA
    assert np.ptp(stress) * EV_PER_A3_IN_GPA > 50
    assert np.median(error) < 1.0


def test_references_are_readable():
    references = json.loads((FOLDER / "sic_references.json").read_text())
    assert references["SiC"]["a0_A"] == pytest.approx(4.3894, abs=1e-4)
    assert set(references["E0_atoms_eV"]) == {"C", "Si"}
    json.loads((FOLDER / "phonon_SiC.json").read_text())


def test_compositions_identify_the_reference_energies():
    store = open_store(FOLDER / "sic_pbe.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistics = compute_statistics(store, range(len(store)), 5.0)
    carbon, silicon = statistics.reference_energies
    assert -9.5 < carbon < -7.5 and -6.0 < silicon < -4.5


def test_can_be_trained_on():
    data = PotentialDataModule(DataConfig(train=str(FOLDER / "sic_pbe.h5")), cutoff=4.0)
    data.setup()
    assert sum(len(batch.index) for batch in data.train_dataloader()) == 232
    assert sum(len(batch.index) for batch in data.val_dataloader()) == 26


def test_is_built_from_the_labelled_frames(third_party_data, tmp_path):
    source = third_party_data / "sic_gpaw" / "dataset.extxyz"
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    assert build(source, tmp_path) == {"sic_pbe.h5": 258, "sic_pbe_test.h5": 37}
    for name in ("sic_pbe.h5", "sic_pbe_test.h5"):
        assert open_store(tmp_path / name).content_hash == open_store(FOLDER / name).content_hash
    frames = [a for a in ase.io.read(source, ":") if a.info["split"] == "test"]
    store = open_store(FOLDER / "sic_pbe_test.h5")
    for atoms, structure in zip(frames, store, strict=True):
        assert structure.energy == atoms.calc.results["free_energy"]
        np.testing.assert_array_equal(structure.forces, atoms.calc.results["forces"])
