"""Distillation of a small teacher: the files, the plan, resuming, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.io import read, write

from tesseral import TesseralCalculator
from tesseral.calculators.mean import MeanCalculator
from tesseral.data.store.read import open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import Structure, atoms_from_structure
from tesseral.deploy.modelfile import load_model, read_card, save_model
from tesseral.learning import comparison
from tesseral.learning import distill as module
from tesseral.learning.comparison import crystal_properties
from tesseral.learning.config import LearnConfig
from tesseral.learning.distill import distill
from tesseral.learning.distill_config import DistillConfig
from tesseral.learning.label import label_of
from tesseral.learning.rounds import Learned
from tesseral.learning.settings import keep_settings
from tesseral.potentials.architectures.facet import FacetConfig


@pytest.fixture
def crystal(tmp_path: Path) -> Path:
    """Zincblende SiC, stable in the teacher."""
    path = tmp_path / "SiC.cif"
    write(path, bulk("SiC", "zincblende", a=5.42))
    return path


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few labels."""
    monkeypatch.setattr(module, "COPIES", 6)
    monkeypatch.setattr(module, "NEAR", 4)
    monkeypatch.setattr(module, "LABELS", 4)
    monkeypatch.setattr(module, "MOST_FRAMES", 40)


def options(crystal: Path, teacher: Path, **more: object) -> DistillConfig:
    """A distillation of seconds."""
    values: dict[str, object] = {
        "structures": [str(crystal)],
        "teacher": [str(teacher)],
        "output": str(crystal.with_name("out")),
        "time": "4s",
        "atoms": 8,
        "device": "cpu",
    }
    return DistillConfig(**{**values, **more})  # type: ignore[arg-type]


def forces_of(teacher: TesseralCalculator, structure: Structure) -> np.ndarray:
    """Forces of the teacher."""
    atoms = atoms_from_structure(structure)
    teacher.calculate(atoms)
    return teacher.results["forces"]


def first_rounds(
    config: DistillConfig, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> LearnConfig:
    """What `distill` asks of `learn` for the first rounds; nothing is learned."""
    config.folder.mkdir()
    calculator = MeanCalculator([teacher], device="cpu")
    given = module._structures(config, calculator)
    cells = module._supercells(given, calculator, config, lambda *_: None)
    asked: list[LearnConfig] = []

    def stopped(made: LearnConfig, console: object) -> Learned:
        asked.append(made)
        return Learned([], Path(), Path(), Path(), "stopped", signal=2)

    monkeypatch.setattr(module, "learn", stopped)
    plan = module._plan(cells, calculator, config)
    module._learn(config, plan, [teacher], calculator, None)
    return asked[0]


@pytest.mark.usefixtures("hurried")
def test_from_a_cif_to_a_model_beside_its_teacher(crystal: Path, stable_model: Path) -> None:
    done = distill(options(crystal, stable_model))
    assert done.result is not None
    test = open_store(done.test)
    spread = np.concatenate([structure.forces for structure in test]).std()
    assert 0 < done.result["errors"]["forces"]["mae"] < 1000 * spread
    quantities = {row["quantity"]: row["teacher"] for row in done.result["properties"]}
    assert {"a", "volume", "C11", "C12", "C44", "bulk modulus"} <= quantities.keys()
    assert done.model.is_file() and done.export.is_file()
    assert TesseralCalculator(done.model, device="cpu").stop is not None  # knows its uncertainty
    teacher = TesseralCalculator(stable_model, device="cpu")
    taught = open_store(done.model.with_name("taught.h5"))
    for structure in (taught[0], taught[len(taught) - 1], test[0]):
        np.testing.assert_allclose(forces_of(teacher, structure), structure.forces, atol=1e-4)
    kinds = taught.texts("config_type")
    assert {"distorted", "teacher 300 K", "teacher 1500 K"} <= set(kinds)
    assert kinds.count("near") == module.NEAR * 4  # a batch holds four cells of two atoms: `atoms`
    kept = [done.model.with_name("taught.h5"), done.test, *done.model.parent.rglob("round*/model*")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = distill(options(crystal, stable_model))
    assert again.result is not None
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.result["errors"] == done.result["errors"]


@pytest.mark.usefixtures("hurried")
def test_two_teachers_teach_their_mean(crystal: Path, stable_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    potential, card = load_model(stable_model)
    with torch.no_grad():
        for weights in potential.parameters():
            weights.mul_(1.02)
    save_model(other, potential, card)
    done = distill(replace(options(crystal, stable_model), teacher=[str(stable_model), str(other)]))
    teachers = [TesseralCalculator(path, device="cpu") for path in (stable_model, other)]
    for name in ("taught.h5", "test.h5", "learn/dataset.h5"):
        structure = open_store(done.model.parent / name)[-1]
        first, second = (forces_of(teacher, structure) for teacher in teachers)
        assert np.abs(first - second).max() > 1e-3
        np.testing.assert_allclose((first + second) / 2, structure.forces, atol=1e-4)


def test_a_student_starts_from_an_earlier_one(
    crystal: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(options(crystal, stable_model), init_from=str(stable_model))
    asked = first_rounds(config, stable_model, monkeypatch)
    assert asked.fit.model == read_card(stable_model).config != FacetConfig()
    assert asked.fit.init_from == str(stable_model)


def test_a_missing_start_is_refused_at_once(crystal: Path, stable_model: Path) -> None:
    config = replace(options(crystal, stable_model), init_from="nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        distill(config)
    assert not config.folder.exists()
    with pytest.raises(ValueError, match="`fast` and `init_from`"):
        replace(config, fast=True)
    with pytest.raises(ValueError, match="twice"):
        replace(config, teacher=[str(stable_model)] * 2)


def test_a_start_that_lacks_an_element_is_refused(crystal: Path, stable_model: Path) -> None:
    config = replace(options(crystal, stable_model), init_from=str(stable_model))
    module._check_start(config, [read(crystal)])
    with pytest.raises(ValueError, match="`init_from` .* does not know Cu"):
        module._check_start(config, [bulk("Cu")])


@pytest.mark.usefixtures("hurried")
def test_interrupted_teaching_resumes_where_it_was(
    crystal: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(crystal, stable_model)
    made: list[str] = []
    frames = module._frames

    def counted(*arguments, **more):  # type: ignore[no-untyped-def]
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(arguments[6])
        return frames(*arguments, **more)

    monkeypatch.setattr(module, "_frames", counted)
    with pytest.raises(KeyboardInterrupt):
        distill(config)
    plan = json.loads((config.folder / "plan.json").read_text("utf-8"))
    assert len(list((config.folder / "teaching").glob("*.h5"))) == 5  # and the distorted copies
    made.clear()
    monkeypatch.setattr(module, "_frames", lambda *a, **m: made.append(a[6]) or frames(*a, **m))
    monkeypatch.setattr(module, "_learn", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        distill(config)
    assert len(made) == plan["runs"] - 4 + 1  # and the test
    assert json.loads((config.folder / "plan.json").read_text("utf-8")) == plan


def test_vacancies_and_supercells(crystal: Path, stable_model: Path) -> None:
    config = options(crystal, stable_model, vacancies=True, atoms=30)
    config.folder.mkdir()
    teacher = MeanCalculator([stable_model], device="cpu")
    cells = module._supercells(
        module._structures(config, teacher), teacher, config, lambda *_: None
    )
    sizes = [len(atoms) for atoms in cells]
    assert sizes[0] >= 30 and sizes[1:] == [sizes[0] - 1] * 2
    assert {len(atoms.symbols.search("Si")) for atoms in cells[1:]} == {
        sizes[0] // 2,
        sizes[0] // 2 - 1,
    }


def test_a_plan_spends_the_time(crystal: Path, stable_model: Path) -> None:
    plans = []
    for number, time in enumerate(("10m", "1h")):
        config = options(crystal, stable_model, time=time, output=str(crystal.parent / f"{number}"))
        config.folder.mkdir()
        teacher = MeanCalculator([stable_model], device="cpu")
        cells = module._structures(config, teacher)
        plan = module._plan(cells, teacher, config)
        copies = module.COPIES * len(cells) + module.NEAR
        taught = plan.step * (plan.runs * plan.steps * len(cells) + copies)
        assert taught == pytest.approx(module.TEACHING * plan.seconds, rel=0.05)
        trainings = (module.ROUNDS - 1) * plan.short + plan.long
        assert taught + trainings < 0.9 * plan.seconds
        plans.append(plan)
    assert plans[1].long == pytest.approx(6 * plans[0].long)


def test_a_fast_student_has_the_size_of_the_configuration(
    crystal: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(crystal, stable_model, fast=True)
    asked = first_rounds(config, stable_model, monkeypatch)
    assert asked.fit.model == FacetConfig(layers=1, l_max=3)


def test_the_student_of_molecules_has_the_size_for_molecules(
    crystal: Path, stable_model: Path
) -> None:
    config = options(crystal, stable_model)
    assert module._model(config, [molecule("H2O")]) == FacetConfig(
        cutoff=4.0, spline_intervals=12, channels=32, l_max=3, mixings=2
    )
    assert module._model(config, [molecule("H2O"), bulk("Cu")]) == FacetConfig()


def test_refusals(crystal: Path, stable_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`temperature` is 'hot'"):
        options(crystal, stable_model, temperature="hot")
    with pytest.raises(ValueError, match="not a duration"):
        options(crystal, stable_model, time="soon")
    water = tmp_path / "water.xyz"
    write(water, molecule("H2O"))
    with pytest.raises(ValueError, match="does not know H, O"):
        distill(options(water, stable_model))
    config = options(crystal, stable_model, output=str(tmp_path))
    with pytest.raises(ValueError, match="holds no results of distill"):
        distill(config)
    other = options(crystal, stable_model, output=str(tmp_path / "other"))
    other.folder.mkdir()
    keep_settings(other.folder / module.SETTINGS, module._settings(other))
    with pytest.raises(ValueError, match="was made with `atoms` 8, not 9"):
        distill(options(crystal, stable_model, output=str(tmp_path / "other"), atoms=9))


def test_a_model_in_which_the_crystal_is_not_stable_has_no_properties(
    crystal: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def properties(atoms, calculator):  # type: ignore[no-untyped-def]
        if calculator is not first[0]:
            raise ValueError("the atoms overlap")
        return {("a", "Å"): 4.0}

    first: list[object] = []
    make = comparison.MeanCalculator

    def made(*arguments, **options):  # type: ignore[no-untyped-def]
        first.append(make(*arguments, **options))
        return first[-1]

    monkeypatch.setattr(comparison, "MeanCalculator", made)
    monkeypatch.setattr(comparison, "crystal_properties", properties)
    atoms = read(crystal)
    atoms.calc = make([stable_model], device="cpu")
    test = tmp_path / "test.h5"
    write_store(test, [label_of(atoms)])
    found = comparison.compare(stable_model, [stable_model], [atoms], [atoms], test)
    (row,) = found["properties"]
    assert row["teacher"] == 4.0 and np.isnan(row["model"]) and np.isnan(row["difference"])
    assert found["errors"]["forces"]["mae"] < 1e-2


def test_properties_of_a_cubic_crystal(crystal: Path, stable_model: Path) -> None:
    calculator = TesseralCalculator(stable_model, device="cpu", dtype="float64")
    found = crystal_properties(read(crystal), calculator)
    names = [name for name, _ in found]
    assert names == ["a", "volume", "C11", "C12", "C44", "bulk modulus", "shear modulus"]
    average = (found["C11", "GPa"] + 2 * found["C12", "GPa"]) / 3
    assert found["bulk modulus", "GPa"] == pytest.approx(average, rel=0.02)
