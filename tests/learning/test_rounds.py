"""Rounds with labels from EMT, interrupted in several places."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from rich.console import Console

from tesseral.data.store.read import open_store
from tesseral.data.structures import atoms_from_structure, structure_from_atoms
from tesseral.deploy.modelfile import load_model
from tesseral.learning import rounds
from tesseral.learning.config import ExploreConfig, LabelConfig, LearnConfig, RoundFitConfig
from tesseral.learning.label import Label, Round
from tesseral.learning.rounds import learn
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.training.config import TrainerConfig

SITE = """
import conftest_of_learning
def executor():
    return conftest_of_learning.Here({tasks})
"""


@pytest.fixture
def config(tmp_path, here, monkeypatch) -> LearnConfig:
    """Two rounds of six and three labels of copper, computed in this process."""
    monkeypatch.setitem(sys.modules, "conftest_of_learning", sys.modules[here.__module__])
    (tmp_path / "site.py").write_text(SITE.format(tasks="float('inf')"))
    write(tmp_path / "cu.cif", bulk("Cu", cubic=True))
    return LearnConfig(
        structures=[str(tmp_path / "cu.cif")],
        output=str(tmp_path / "out"),
        labels=LabelConfig(
            calculator="ase.calculators.emt.EMT",
            executor=f"{tmp_path / 'site.py'}:executor",
            theory="EMT",
        ),
        explore=ExploreConfig(temperatures=[300.0], time=0.04, every=10, distorted=4),
        fit=RoundFitConfig(
            model=FacetConfig(cutoff=3.5, channels=4, l_max=1, layers=1),
            trainer=TrainerConfig(max_steps=8, enable_progress_bar=False),
            validation_fraction=0.5,
        ),
        first_labels=6,
        labels_per_round=3,
        rounds=2,
    )


def die_after(config: LearnConfig, tasks: int) -> None:
    """Let the executor die before a task."""
    site = Path(str(config.labels.executor).rpartition(":")[0])
    site.write_text(SITE.format(tasks=tasks))


def files(config: LearnConfig, pattern: str) -> dict[str, float]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(Path(config.output).glob(pattern))}


def said(config: LearnConfig) -> str:
    console = Console(file=StringIO(), width=200)
    learn(config, console)
    return console.file.getvalue()


@pytest.mark.slow
def test_two_rounds(config):
    result = learn(config)
    store = open_store(result.dataset)
    assert len(store) == 9 and result.ending == "2 rounds are complete"
    assert set(store.texts("theory")) == {"EMT"}
    assert store.texts("group")[0] == "round 0 cu-distorted"
    assert any(group.startswith("round 1 cu-") for group in store.texts("group"))
    structure = store[8]
    atoms = atoms_from_structure(structure)
    atoms.calc = EMT()
    np.testing.assert_allclose(structure.forces, atoms.get_forces(), atol=1e-6)
    potential, card = load_model(result.model)
    assert card.uncertainty and potential.uncertainty is not None
    assert result.rounds[0].tested is None
    assert result.rounds[1].tested["structures"] == 3
    page = result.page.read_text()
    assert "Round 1" in page and "r01-002" in page and "<script" not in page


@pytest.mark.slow
def test_killed_at_several_places_and_resumed(config, killed, monkeypatch):
    die_after(config, 4)  # within the labels of the first round
    with pytest.raises(killed):
        learn(config)
    before = files(config, "round-00/labels/*.extxyz")
    assert len(before) == 4
    die_after(config, 2)
    with monkeypatch.context() as patch:  # before the training
        patch.setattr(rounds, "train", lambda *_: (_ for _ in ()).throw(killed()))
        with pytest.raises(killed):
            learn(config)
    with monkeypatch.context() as patch:  # while it explores
        patch.setattr(rounds, "write_store", _dies_at("explored.h5", killed))
        with pytest.raises(killed):
            learn(config)
    model = files(config, "round-00/model.safetensors")
    die_after(config, 3)  # no label is computed again
    result = learn(config)
    assert len(open_store(result.dataset)) == 9
    after = files(config, "round-00/labels/*.extxyz")
    assert {name: after[name] for name in before} == before
    assert files(config, "round-00/model.safetensors") == model


def _dies_at(name: str, error: type[BaseException]):
    from tesseral.data.store.write import write_store

    def write_or_die(path, structures, **options):
        if path.name == name:
            next(iter(structures))
            raise error
        return write_store(path, structures, **options)

    return write_or_die


def test_labels_by_hand(config):
    config = replace(config, labels=LabelConfig(calculator="manual", theory="mine"), rounds=1)
    waiting = learn(config)
    assert waiting.waiting and "6 structures wait for labels" in waiting.ending
    folder = Path(config.output) / "round-00"
    asked = sorted((folder / "to_label").glob("*.extxyz"))
    done = [read(path) for path in asked]
    for atoms in done:
        atoms.info = {}
        atoms.calc = EMT()
        atoms.get_stress()
    write(folder / "by_hand" / "some.extxyz", done[:4])
    assert "2 structures wait" in learn(config).ending
    write(folder / "by_hand" / "rest.extxyz", done[4:])
    result = learn(config)
    store = open_store(result.dataset)
    assert len(store) == 6 and not result.waiting
    assert set(store.texts("theory")) == {"mine"}


def test_all_labels_fail(config):
    write(Path(config.output).parent / "cu.cif", bulk("Fe", cubic=True))
    with pytest.raises(ValueError, match="all 6 labels of round 0 failed .*Fe"):
        learn(config)
    right = replace(config.labels, calculator="ase.calculators.lj.LennardJones")
    stopped = replace(config, labels=right, rounds=1)
    assert len(open_store(learn(stopped).dataset)) == 6  # with another source


def test_some_labels_fail(config, monkeypatch):
    real = EMT.calculate

    def fails_once(self, *arguments):
        monkeypatch.setattr(EMT, "calculate", real)
        raise RuntimeError("the SCF cycle did not converge")

    monkeypatch.setattr(EMT, "calculate", fails_once)
    text = said(replace(config, rounds=1))
    assert "r00-000 has no label and is not learned: the SCF cycle did not converge" in text
    assert len(open_store(Path(config.output) / "dataset.h5")) == 5


@pytest.mark.slow
def test_the_budget_counts_all_labels(config):
    result = learn(replace(config, budget=7, rounds=3))
    assert result.ending == "the budget of 7 labels is spent"
    assert [len(each.labels) for each in result.rounds] == [6, 1]


@pytest.mark.slow
def test_the_target_ends_it(config):
    result = learn(replace(config, target=100.0, rounds=3))
    assert "below the target of 100" in result.ending and len(result.rounds) == 2


@pytest.mark.slow
def test_start_data_are_learned_first(config):
    first = learn(replace(config, rounds=1))
    output = str(Path(config.output).with_name("second"))
    result = learn(replace(config, data=str(first.dataset), output=output))
    assert [len(each.labels) for each in result.rounds] == [0, 3]
    assert len(open_store(result.dataset)) == 3
    assert len(open_store(result.rounds[1].folder / "train.h5")) + len(
        open_store(result.rounds[1].folder / "validation.h5")
    ) == (6 + 3)


def test_a_folder_of_another_run_is_refused(config):
    one = replace(config, rounds=1)
    learn(one)
    other = replace(one, labels=replace(one.labels, calculator="ase.calculators.lj.LennardJones"))
    with pytest.raises(ValueError, match="was made with `calculator` ase.calculators.emt.EMT"):
        learn(other)


def test_a_folder_with_other_files_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="holds no results of learn"):
        learn(replace(config, output=str(tmp_path)))


def test_settings_that_are_refused_are_refused_again(config, killed):
    """Also before the first label, when the calculator may still change."""
    die_after(config, 0)
    with pytest.raises(killed):
        learn(config)
    other = str(Path(config.output).with_name("iron.cif"))
    write(other, bulk("Cu", cubic=True, a=3.7))
    for _ in range(2):
        with pytest.raises(ValueError, match="was made with `structures`"):
            learn(replace(config, structures=[other]))
    die_after(config, 100)
    right = replace(config.labels, calculator="ase.calculators.lj.LennardJones")
    assert len(open_store(learn(replace(config, labels=right, rounds=1)).dataset)) == 6


def test_a_folder_that_was_moved_is_resumed(config, small_model, tmp_path):
    """With its structures; the device of a model that labels may change too."""
    model = tmp_path / "model.safetensors"
    shutil.copyfile(small_model, model)
    write(tmp_path / "cu.cif", bulk("Si", cubic=True))
    labels = replace(config.labels, calculator=str(model), arguments={"device": "cpu"})
    config = replace(config, labels=labels, rounds=1)
    learn(config)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (Path(config.output), model, Path(config.structures[0])):
        path.rename(moved / path.name)
    config = replace(
        config,
        output=str(moved / "out"),
        structures=[str(moved / "cu.cif")],
        labels=replace(labels, calculator=str(moved / model.name), arguments={}),
    )
    before = files(config, "round-00/*")
    assert len(learn(config).rounds) == 1
    assert files(config, "round-00/*") == before


def test_nothing_to_explore(config):
    closest = replace(config.explore, closest=1.0, rattle=1.0)
    with pytest.raises(ValueError, match="explored no structure whose atoms are apart"):
        learn(replace(config, explore=closest))
    assert len(open_store(learn(replace(config, rounds=1)).dataset)) == 6  # as the message says


def test_few_labels_have_one_to_validate(config):
    fit = replace(config.fit, validation_fraction=0.1)
    result = learn(replace(config, fit=fit, rounds=1))
    assert len(open_store(result.rounds[0].folder / "validation.h5")) == 1
    assert len(open_store(result.rounds[0].folder / "train.h5")) == 5


def test_one_label_is_too_few(config, monkeypatch):
    real, count = EMT.calculate, []

    def fails(self, *arguments):
        count.append(1)
        if len(count) > 1:
            raise RuntimeError("the SCF cycle did not converge")
        real(self, *arguments)

    monkeypatch.setattr(EMT, "calculate", fails)
    with pytest.raises(ValueError, match=r"one label is too few .* remove .*failed\.json"):
        learn(config)
    monkeypatch.setattr(EMT, "calculate", real)
    for path in Path(config.output).glob("round-00/labels/*.failed.json"):
        path.unlink()
    assert len(open_store(learn(replace(config, rounds=1)).dataset)) == 6


def test_labels_that_come_later_leave_the_others_in_their_parts(config):
    """What a model was trained on must not validate the next one, which starts from it."""
    Path(config.output).mkdir()
    loop = rounds.Loop(config, None)
    structure = structure_from_atoms(bulk("Cu", cubic=True))
    names = tuple(f"r00-{k:03d}" for k in range(8))

    def parts(have):
        labels = [Label(name, structure._replace(config_type=name)) for name in have]
        now = Round(0, loop.folder, labels, None, names)
        made = loop.parts([now])
        return {one.config_type: part for part, some in made.items() for one in some}

    all_there = parts(names)
    for missing in names:
        some = parts([name for name in names if name != missing])
        assert all(all_there[name] == part for name, part in some.items())
