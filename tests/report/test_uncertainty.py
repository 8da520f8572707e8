"""The section of expected errors, with labels whose errors are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.store.read import write_store
from tesseral.deploy.modelfile import build_potential, load_model, save_model
from tesseral.report.sections.uncertainty import uncertainty

from .conftest import labelled, shaken

BOUND = 1.57  # 90% of a Maxwell distribution, in units of its mean


@pytest.fixture
def knowing(small_model: Path, tmp_path: Path) -> Path:
    """The small model with an uncertainty in units of its features."""
    potential, card = load_model(small_model)
    values = {"forces": 1.0, "exponent": 1.0, "reach": 1e6, "energy": 0.1, "bound": BOUND}
    closest = [3.0, 1.0, 1.0]  # C–C is closer than that in a cell of SiC
    card = replace(card, uncertainty={**values, "energy_bound": 2.0, "closest": closest})
    made = build_potential(card)
    made.load_state_dict(potential.state_dict(), strict=False)
    assert made.uncertainty is not None
    torch.nn.init.eye_(made.uncertainty.factor)
    save_model(tmp_path / "knowing.safetensors", made, card)
    return tmp_path / "knowing.safetensors"


def noisy(model: Path, path: Path, scale: float, count: int = 12, seed: int = 0) -> str:
    """A set whose force errors are this many times those that the model expects, on average."""
    calculator, rng = TesseralCalculator(model, device="cpu"), np.random.default_rng(seed)
    structures = []
    for cell, made in zip(shaken(count), labelled(model, shaken(count)), strict=True):
        calculator.calculate(cell)
        size = scale * calculator.results["forces_uncertainty"] / np.sqrt(8 / np.pi)
        noise = size[:, None] * rng.normal(size=(len(cell), 3))
        structures.append(made._replace(forces=made.forces + noise))
    write_store(path, structures)
    return str(path)


def levels(section):
    return {verdict.key: verdict.level for verdict in section.verdicts}


def test_errors_as_large_as_expected_pass(make_context, knowing, tmp_path):
    section = uncertainty(
        make_context(model=str(knowing), data=noisy(knowing, tmp_path / "a.h5", 1))
    )
    assert levels(section)["force-bound"] == "pass"
    assert section.numbers["ratio"] == pytest.approx(1, abs=0.15)
    assert section.numbers["miscalibration_area"] < 0.1


def test_errors_larger_than_expected_fail(make_context, knowing, tmp_path):
    section = uncertainty(
        make_context(model=str(knowing), data=noisy(knowing, tmp_path / "a.h5", 5))
    )
    assert levels(section)["force-bound"] == "fail"


def test_another_set_is_compared_with_the_test_set(make_context, knowing, tmp_path):
    data = noisy(knowing, tmp_path / "a.h5", 1)
    section = uncertainty(make_context(model=str(knowing), data=data, outside=data))
    assert section.numbers["roc_area"] == pytest.approx(0.5)
    assert levels(section)["outside"] == "fail"


def test_pairs_closer_than_in_the_training_set_are_said(make_context, knowing, tmp_path):
    section = uncertainty(
        make_context(model=str(knowing), data=noisy(knowing, tmp_path / "a.h5", 1))
    )
    assert "no C–C pair closer than 3.00 Å" in section.blocks[-1].text


def test_few_structures_say_nothing_about_energies(make_context, knowing, tmp_path):
    data = noisy(knowing, tmp_path / "a.h5", 1, count=3)
    found = levels(uncertainty(make_context(model=str(knowing), data=data)))
    assert found.keys() == {"force-bound"}


def test_a_model_without_it_says_how_to_get_it(make_context):
    section = uncertainty(make_context())
    assert "train-potential calibrate" in section.blocks[0].text
    assert not section.verdicts
