"""Training with a teacher: its files, its labels, resuming, refusals."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

from tesseral import TesseralCalculator
from tesseral.calculators.mean import MeanCalculator
from tesseral.commands.main import main
from tesseral.commands.teach import advice
from tesseral.data.store.read import open_store
from tesseral.data.store.write import write_store
from tesseral.data.structures import Structure, atoms_from_structure, structure_from_atoms
from tesseral.deploy.modelfile import build_potential, load_model, read_card, save_model
from tesseral.learning import teach as module
from tesseral.learning.around import BETWEEN, around
from tesseral.learning.label import label_of
from tesseral.learning.teach import teach
from tesseral.learning.teach_config import TeachConfig
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.training.config import FitConfig

pytestmark = pytest.mark.filterwarnings("ignore:the compositions of the training set")


@pytest.fixture
def labels(stable_model: Path, tmp_path: Path) -> Path:
    """Rattled cells of SiC with labels of a stiffer potential."""
    potential, card = load_model(stable_model)
    with torch.no_grad():
        for weights in potential.parameters():
            weights.mul_(1.02)
    save_model(tmp_path / "truth.safetensors", potential, card)
    return write(tmp_path / "labels.h5", tmp_path / "truth.safetensors", 30)


def write(path: Path, truth: Path, count: int, **changes: str) -> Path:
    """Write labels of a potential."""
    calculator = TesseralCalculator(truth, device="cpu")
    found = []
    for seed in range(count):
        atoms = bulk("SiC", "zincblende", a=5.42, cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = calculator
        found.append(label_of(atoms)._replace(group=f"run {seed}", theory="PBE", **changes))
    write_store(path, found)
    return path


def options(labels: Path, teacher: Path, **more: Any) -> TeachConfig:
    """A run of seconds."""
    values: dict[str, Any] = {"teacher": str(teacher), "time": "5s", "copies": 2, "device": "cpu"}
    return TeachConfig(train=str(labels), output=str(labels.with_name("out")), **values | more)


def asked(config: TeachConfig, monkeypatch: pytest.MonkeyPatch) -> list[FitConfig]:
    """The trainings up to the last, none of which is run.

    The teacher is what it starts from, and the first potential that of the labels.
    """
    found: list[FitConfig] = []
    truth = Path(config.train).with_name("truth.safetensors")

    def noted(made: FitConfig, model: Path, console: object) -> int | None:
        found.append(made)
        if model.name == "model.safetensors":
            return 2
        if not model.exists():
            model.write_bytes(Path(made.init_from or truth).read_bytes())
        return None

    monkeypatch.setattr(module, "train", noted)
    assert teach(config).signal == 2
    return found


def test_from_labels_to_a_model_beside_its_teacher(labels: Path, stable_model: Path) -> None:
    done = teach(options(labels, stable_model))
    folder = done.model.parent
    assert done.result is not None
    assert done.model.is_file() and done.export.is_file()
    fitted, held_out = open_store(folder / "fit.h5"), open_store(folder / "validation.h5")
    assert len(fitted) + len(held_out) == 30
    taught = open_store(folder / "taught.h5")
    assert done.result["structures"] == len(fitted) and done.result["labels"] == len(taught)
    assert set(taught.texts("theory")) == {"PBE"}
    teachers = [folder / "teacher.safetensors", folder / "first.safetensors"]
    teacher, first = (forces_of(path, taught[3]) for path in teachers)
    assert np.abs(teacher - first).max() > 1e-3
    share = module._share(options(labels, stable_model))
    expected = share * teacher + (1 - share) * first
    np.testing.assert_allclose(expected, taught[3].forces, atol=1e-4)
    for name in ("teacher", "first", "model"):
        assert 0 < done.result[name]["errors"]["forces"]["mae"] < 1e4
    card = read_card(done.model)
    assert card.training["data"]["replay"] == "taught.h5"
    assert card.training["data"]["train"]["structures"] == 2 * len(fitted)
    assert card.training["started from"] == str(folder / "second.safetensors")
    second = read_card(folder / "second.safetensors").training["data"]["train"]
    assert second["structures"] == len(fitted) + len(taught)
    assert TesseralCalculator(done.model, device="cpu").stop is not None  # knows its uncertainty

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.[hs]*5*")}
    copied = folder / "model.safetensors"
    content = copied.read_bytes()
    copied.unlink()  # as if interrupted between its training and its copy
    again = teach(options(labels, stable_model))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert copied.read_bytes() == content
    assert again.result is not None
    assert again.result["model"]["errors"] == done.result["model"]["errors"]


def forces_of(model: Path, structure: Structure) -> np.ndarray:
    """Forces of a potential."""
    atoms = atoms_from_structure(structure)
    atoms.calc = TesseralCalculator(model, device="cpu")
    return atoms.get_forces()


def test_the_mean_of_both_has_the_smallest_error_on_validation(
    labels: Path, stable_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write(folder / "validation.h5", tmp_path / "truth.safetensors", 5)
    (folder / "teacher.safetensors").write_bytes(stable_model.read_bytes())
    potential, card = load_model(stable_model)
    with torch.no_grad():
        for weights in potential.parameters():
            weights.mul_(1.03)
    save_model(folder / "first.safetensors", potential, card)
    config = options(labels, stable_model)
    share = module._share(config)

    def error(weight: float) -> float:
        paths = [folder / "teacher.safetensors", folder / "first.safetensors"]
        mean = MeanCalculator(paths, device="cpu", weights=[weight, 1 - weight])
        found = []
        for structure in open_store(folder / "validation.h5"):
            atoms = atoms_from_structure(structure)
            atoms.calc = mean
            found.append(atoms.get_forces() - structure.forces)
        return float(np.square(found).mean())

    assert 0.2 < share < 0.5  # the first is nearer to the truth
    assert error(share) < min(error(share + 0.05), error(share - 0.05), error(0.0), error(1.0))


def test_the_time_is_divided_among_the_trainings(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = asked(options(labels, stable_model, time="100s"), monkeypatch)
    seconds = [training.trainer.seconds for training in trainings]
    parts = module.TUNING, module.LEARNING, module.TAUGHT_TRAINING, module.ENDING
    assert seconds == pytest.approx([100 * part for part in parts])
    tuning, first, second, last = trainings
    assert sum(seconds) + 100 * module.LABELLING <= 100
    assert tuning.init_from == str(stable_model)
    assert first.init_from is None and first.model == FacetConfig()
    folder = labels.with_name("out")
    assert second.init_from == str(folder / "first.safetensors")
    assert last.init_from == str(folder / "second.safetensors")
    ratio = len(open_store(folder / "taught.h5")) / len(open_store(folder / "fit.h5"))
    assert second.data.replay_ratio == ratio == 2.0
    assert last.data.replay == second.data.replay and last.data.replay_ratio == 1.0


def test_further_structures_are_labelled_by_the_teacher_alone(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slab = bulk("SiC", "zincblende", a=5.42, cubic=True)
    slab.center(4.0, axis=2)
    path = labels.with_name("slab.xyz")
    slab.write(path)
    with pytest.raises(FileNotFoundError, match="nothing.xyz"):
        teach(options(labels, stable_model, structures=["nothing.xyz"]))
    asked(options(labels, stable_model, structures=[str(path)]), monkeypatch)
    folder = labels.with_name("out")
    taught = open_store(folder / "taught.h5")
    copies = [structure for structure in taught if structure.config_type == "slab"]
    assert len(copies) == module.COPIES
    moved = np.array([copy.positions - slab.positions for copy in copies])
    assert 0 < moved.std() < module.RATTLE
    for copy in copies[:2]:
        np.testing.assert_allclose(copy.cell, slab.cell.array)  # not strained: it has a vacuum
        expected = forces_of(folder / "teacher.safetensors", copy)
        np.testing.assert_allclose(copy.forces, expected, atol=1e-4)


@pytest.mark.parametrize(("size", "channels"), [("fast", 16), ("default", 16), ("large", 32)])
def test_sizes(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch, size: str, channels: int
) -> None:
    _, first, second, last = asked(options(labels, stable_model, size=size), monkeypatch)
    assert first.model == second.model == last.model
    assert isinstance(first.model, FacetConfig)
    assert (first.model.channels, first.model.layers) == (channels, 1 if size == "fast" else 2)


def test_validation_structures_can_be_given(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write(labels.with_name("other.h5"), labels.with_name("truth.safetensors"), 3)
    asked(options(labels, stable_model, validation=str(other)), monkeypatch)
    folder = labels.with_name("out")
    assert len(open_store(folder / "fit.h5")) == 30
    assert open_store(folder / "validation.h5").content_hash == open_store(other).content_hash


def test_molecules_have_the_settings_for_molecules(
    stable_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calculator = TesseralCalculator(stable_model, device="cpu")
    found = []
    for seed in range(12):
        atoms = Atoms("C2Si", [(0.0, 0.0, 0.0), (0.0, 0.0, 1.4), (0.0, 1.8, 0.5)])
        atoms.rattle(0.03, seed=seed)
        atoms.calc = calculator
        found.append(label_of(atoms)._replace(group=f"run {seed}"))
    write_store(tmp_path / "labels.h5", found)
    (tmp_path / "truth.safetensors").write_bytes(stable_model.read_bytes())
    _, first, *_, last = asked(options(tmp_path / "labels.h5", stable_model), monkeypatch)
    assert first.model.cutoff == last.model.cutoff == 4.0
    assert first.data.batch_structures == 10
    assert first.loss.stress_weight == 0


def test_a_universal_potential_is_tuned_as_one(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(read_card(tmp_path / "truth.safetensors"), config=NequIPConfig(channels=4))
    save_model(tmp_path / "universal.safetensors", build_potential(card), card)
    tuning, first, *_ = asked(options(labels, tmp_path / "universal.safetensors"), monkeypatch)
    assert tuning.loss.energy == tuning.loss.forces == "mae"
    assert tuning.optimization.part_rates == {"layers.*.convolution": 0}
    assert first.loss.energy == first.loss.forces == "mse"


def test_few_labels_when_the_time_is_short(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(labels, stable_model, copies=None)
    store = open_store(labels)
    rows = np.arange(len(store))
    calculator = TesseralCalculator(stable_model, device="cpu")
    monkeypatch.setattr(module, "seconds_of_a_step", lambda atoms, calculator, clock: 0.001)
    one = 0.001 * (BETWEEN + 1)  # s, of one structure
    (config.folder / module.LABELS).mkdir(parents=True)
    plan_file = config.folder / module.LABELS / "plan.json"
    for time, expected in (
        (one * 5 / module.LABELLING, (5, 1)),
        (one * 30 * 3.5 / module.LABELLING, (30, 3)),
        (1e6, (30, module.MOST_COPIES)),
    ):
        plan_file.unlink(missing_ok=True)
        timed = replace(config, time=f"{time + 1e-4:.6f}s")
        assert module._plan(timed, store, rows, calculator, calculator) == expected
    monkeypatch.setattr(module, "seconds_of_a_step", lambda atoms, calculator, clock: 1.0)
    assert module._plan(timed, store, rows, calculator, calculator) == expected  # it resumes


def test_interrupted_labelling_resumes_where_it_was(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 4)
    calls = []
    original = module.around

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, "around", interrupted)
    with pytest.raises(KeyboardInterrupt):
        asked(options(labels, stable_model), monkeypatch)
    asked(options(labels, stable_model), monkeypatch)
    fitted = len(open_store(labels.with_name("out") / "fit.h5"))
    assert len(calls) == 6 + fitted - 4  # the first part was kept
    assert not (labels.with_name("out") / module.LABELS).exists()
    assert len(open_store(labels.with_name("out") / "taught.h5")) == 2 * fitted


def test_ctrl_c_while_copies_are_labelled(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk("SiC", "zincblende", a=5.42).write(labels.with_name("cell.xyz"))
    original, calls = module.distorted, []

    def interrupted(*arguments: Any) -> Any:
        for copy in original(*arguments):
            calls.append(copy)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield copy

    monkeypatch.setattr(module, "distorted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        further = [str(labels.with_name("cell.xyz"))]
        asked(options(labels, stable_model, structures=further), monkeypatch)
    assert len(calls) == 3


def test_cells_of_one_atom_are_strained_and_isolated_atoms_are_left_out(
    stable_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calculator = TesseralCalculator(stable_model, device="cpu")
    found = []
    for length in np.linspace(2.0, 2.4, 12):
        atoms = bulk("Si", "sc", a=length)
        atoms.calc = calculator
        found.append(label_of(atoms)._replace(group=f"{length:.2f}"))
    alone = Atoms("Si")
    alone.calc = calculator
    path = tmp_path / "labels.h5"
    write_store(path, [*found, label_of(alone)])
    (tmp_path / "truth.safetensors").write_bytes(stable_model.read_bytes())
    asked(options(path, stable_model), monkeypatch)
    taught = open_store(tmp_path / "out" / "taught.h5")
    assert len(taught) == 2 * (len(open_store(tmp_path / "out" / "fit.h5")) - 1)
    assert all(structure.pbc.all() for structure in taught)


def test_refusals(labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="`copies` is 0; it must be 1 or more"):
        options(labels, stable_model, copies=0)
    with pytest.raises(FileNotFoundError, match="nobody"):
        teach(options(labels, Path("nobody.safetensors")))
    asked(options(labels, stable_model), monkeypatch)
    with pytest.raises(ValueError, match="was made with `seed` 0, not 1; give another folder"):
        teach(options(labels, stable_model, seed=1))
    with pytest.raises(ValueError, match="`teacher` .*truth.safetensors with content"):
        teach(options(labels, labels.with_name("truth.safetensors")))
    labels.with_name("full").mkdir()
    labels.with_name("full").joinpath("x").touch()
    with pytest.raises(ValueError, match="holds no results of teach"):
        teach(replace(options(labels, stable_model), output=str(labels.with_name("full"))))
    copper = bulk("Cu")
    copper.calc = EMT()
    write_store(labels.with_name("copper.h5"), [label_of(copper)._replace(theory="PBE")])
    with pytest.raises(ValueError, match="copper.h5 has Cu, which the training set does not have"):
        teach(options(labels, stable_model, validation=str(labels.with_name("copper.h5"))))
    bulk("Cu").write(labels.with_name("Cu.xyz"))
    with pytest.raises(ValueError, match="Cu.xyz has Cu, which neither the teacher.* nor `train` "):
        teach(options(labels, stable_model, structures=[str(labels.with_name("Cu.xyz"))]))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' cannot be used"):
            teach(options(labels, stable_model, device="cuda"))
    labels.with_name("out").joinpath("teach.json").write_text('{"train": ')
    with pytest.raises(ValueError, match="teach.json is damaged"):
        teach(options(labels, stable_model))
    mixed = labels.with_name("mixed.h5")
    structures = list(open_store(labels))
    write_store(mixed, [structures[0]._replace(theory="PBE0"), *structures[1:]])
    with pytest.raises(ValueError, match="several levels of theory, PBE, PBE0; give datasets of"):
        teach(options(mixed, stable_model))


def test_after_a_refused_training_the_options_may_change(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*rest: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(module, "train", refused)
    with pytest.raises(ValueError, match="no"):
        teach(options(labels, stable_model))
    monkeypatch.undo()
    changed = options(labels, stable_model, seed=1)
    asked(changed, monkeypatch)
    assert json.loads((changed.folder / "teach.json").read_text())["seed"] == 1


def test_a_folder_with_the_name_of_the_teacher_alone_goes_on(
    labels: Path, stable_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(labels, stable_model)
    asked(config, monkeypatch)
    path = config.folder / "teach.json"
    settings = json.loads(path.read_text())
    assert settings["teacher"].startswith(f"{stable_model} with content ")
    path.write_text(json.dumps({**settings, "teacher": str(stable_model)}))
    assert teach(config).signal == 2
    path.write_text(json.dumps({**settings, "teacher": "another"}))
    with pytest.raises(ValueError, match="was made with `teacher` another, not .*stable"):
        teach(config)


def test_from_the_command_line(
    labels: Path, stable_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = labels.with_name("out")
    words = ["teach", str(labels), "--teacher", str(stable_model), "--time", "4s", "--copies", "1"]
    assert main([*words, "--output", str(folder), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "labels only" in shown and "forces MAE, meV/Å" in shown
    assert json.loads((folder / "taught.json").read_text())["labels"] > 0
    assert main([*words, "--output", str(folder), "--seed", "3"]) == 2
    assert "was made with --seed 0, not 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("teacher", "first", "last", "words"),
    [
        (6.0, 9.0, 7.0, None),
        (9.5, 9.0, 8.0, "the teacher errs more than the potential that knows the labels only"),
        (6.0, 9.0, 9.1, "first.safetensors is the better potential"),
    ],
)
def test_it_says_when_the_teacher_did_not_help(
    teacher: float, first: float, last: float, words: str | None
) -> None:
    errors = {"teacher": teacher, "first": first, "model": last}
    said = advice({name: {"errors": {"forces": {"mae": mae}}} for name, mae in errors.items()})
    assert said is words if words is None else words in str(said)


def test_without_validation_forces_it_says_nothing_about_them() -> None:
    errors: dict[str, Any] = {"errors": {"energy_per_atom": {"mae": 1.0}}}
    assert advice(dict.fromkeys(("teacher", "first", "model"), errors)) is None


def test_structures_without_finite_labels_are_left_out() -> None:
    """Also those near which nothing is finite, such as atoms that almost coincide."""

    class Sometimes(EMT):  # type: ignore[misc]
        def calculate(self, atoms: Atoms, *more: Any) -> None:
            if atoms.info.get("bad") == "overlap":
                raise ValueError("atoms overlap")
            if atoms.info.get("bad"):
                raise CalculationFailed("not finite")
            super().calculate(atoms, *more)

    own = structure_from_atoms(bulk("Cu", cubic=True))
    frames = [bulk("Cu", cubic=True) for _ in range(3)]
    frames[0].info["bad"], frames[1].info["bad"] = "overlap", "infinite"
    given = iter([(frame, own) for frame in frames])
    assert len(list(module._labels(given, Sometimes(), lambda: None))) == 1
    frames[0].calc = Sometimes()
    rng = np.random.default_rng(0)
    assert len(list(around(frames[0], 2, 2.0, rng))) == 2
