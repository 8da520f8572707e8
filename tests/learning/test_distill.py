"""Distillation of a small teacher: the files, the plan, resuming, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from tesseral import TesseralCalculator
from tesseral.data.store.read import open_store
from tesseral.learning.distill import distill
from tesseral.learning.distill_config import DistillConfig


@pytest.fixture
def crystal(tmp_path: Path) -> Path:
    """Zincblende SiC, stable in the teacher."""
    path = tmp_path / "SiC.cif"
    write(path, bulk("SiC", "zincblende", a=5.42))
    return path


def options(crystal: Path, teacher: Path, **more: object) -> DistillConfig:
    """A distillation of seconds."""
    values: dict[str, object] = {
        "structures": [str(crystal)],
        "teacher": str(teacher),
        "output": str(crystal.with_name("out")),
        "time": "15s",
        "atoms": 8,
        "device": "cpu",
    }
    return DistillConfig(**{**values, **more})  # type: ignore[arg-type]


def test_from_a_cif_to_a_model_beside_its_teacher(crystal: Path, stable_model: Path) -> None:
    done = distill(options(crystal, stable_model))
    assert done.result is not None
    errors = done.result["errors"]
    test = open_store(done.test)
    spread = np.concatenate([structure.forces for structure in test]).std()
    assert 0 < errors["forces"]["mae"] < 1000 * spread
    quantities = {row["quantity"]: row for row in done.result["properties"]}
    assert {"a", "volume", "C11", "C12", "C44", "bulk modulus"} <= quantities.keys()
    assert abs(quantities["a"]["difference"]) < 5
    assert done.model.is_file() and done.export.is_file()
    assert TesseralCalculator(done.model, device="cpu").stop is not None  # it knows its uncertainty
    teacher = TesseralCalculator(stable_model, device="cpu")
    atoms = read(crystal)
    atoms.calc = teacher
    taught = open_store(crystal.with_name("out") / "taught.h5")
    one = taught[len(taught) - 1]
    teacher.calculate(_atoms(one))
    np.testing.assert_allclose(teacher.results["forces"], one.forces, atol=1e-5)
    np.testing.assert_allclose(teacher.results["energy"], one.energy, rtol=1e-6)
    assert {"distorted", "teacher 300 K", "teacher 1500 K"} <= set(taught.texts("config_type"))


def _atoms(structure):
    from tesseral.data.structures import atoms_from_structure

    atoms = atoms_from_structure(structure)
    atoms.calc = None
    return atoms
