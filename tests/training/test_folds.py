"""Trainings with folds: held-out errors, the training on all structures, resuming."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tesseral.data.store.read import open_store
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.training import fit as module
from tesseral.training.evaluate import evaluate
from tesseral.training.fit import fit
from tesseral.training.folds import best_length


@pytest.fixture
def folded(fit_config):
    """Makes configurations with folds of the training file."""

    def make(folds=3, refit=False, **trainer):
        config = fit_config(**{"max_steps": 6, "validate_every": 2, **trainer})
        data = replace(config.data, validation=None, folds=folds, split="random")
        return replace(config, data=data, refit=refit)

    return make


def histories(*losses):
    return [
        [{"step": 10 * (1 + place), "loss": loss} for place, loss in enumerate(some)]
        for some in losses
    ]


def test_the_final_training_ends_where_the_mean_of_the_losses_is_least():
    assert best_length(histories([4.0, 2.0, 1.0, 3.0])) == (40, 30)
    assert best_length(histories([4.0, 2.0, 1.9, 1.8], [9.0, 3.0, 6.0, 9.0])) == (40, 20)
    long = [[{"step": 2 * e["step"], "loss": e["loss"]} for e in histories([5, 1, 2, 3])[0]]]
    assert best_length([*long, *histories([5, 1, 2, 3]), *long]) == (80, 40)


def test_errors_are_those_of_models_that_have_not_seen_a_structure(folded, emt_files):
    config = folded()
    result = fit(config)
    card, store = read_card(config.output), open_store(emt_files[0])
    absolute, seen = [], []
    for number in range(3):
        path = config.run_directory / f"fold_{number + 1}" / "model.safetensors"
        potential, own = load_model(path)
        found = evaluate(potential, store, own.elements)
        rows = module.parts_of(config.data)[number].split.validation
        seen += rows.tolist()
        difference = (found.energy - found.energy_label) / found.n_atoms
        absolute += np.abs(difference[rows]).tolist()
    assert sorted(seen) == list(range(12))
    with (config.run_directory / "held_out.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [int(line["row"]) for line in table] == list(range(12))
    found = [abs(float(table[row]["energy_error_meV_atom"])) for row in seen]
    np.testing.assert_allclose(found, np.multiply(1e3, absolute), rtol=1e-3)
    mean = 1e3 * np.mean(absolute)
    assert card.errors["validation"]["energy_per_atom"]["mae"] == pytest.approx(mean, rel=1e-6)
    assert card.training["data"]["train"]["structures"] == 12
    assert card.training["data"]["validation"]["structures"] == 0
    assert card.training["errors from"] == "all structures, held out once in 3 folds"
    assert result.best["step"] == card.training["steps"] <= 6
    assert set(card.training["mean and deviation of folds"]) == {
        "energy_per_atom",
        "forces",
        "stress",
    }


def test_the_uncertainty_is_calibrated_on_all_held_out_structures(folded):
    config = folded()
    fit(config)
    card = read_card(config.output)
    assert card.uncertainty["structures"] == 12
    assert load_model(config.output)[0].uncertainty is not None


def test_a_refit_without_folds_trains_on_the_validation_structures_too(folded):
    config = folded(folds=None, refit=True)
    fit(config)
    card = read_card(config.output)
    assert card.training["data"]["train"]["structures"] == 12
    (part,) = module.parts_of(config.data)
    assert card.errors["validation"]["n_structures"] == len(part.split.validation) < 12


def test_resuming_does_not_repeat_folds_that_are_complete(folded, monkeypatch):
    whole = folded(name="whole")
    fit(whole)
    config, train, trained = folded(name="again"), module._train, []

    def interrupted(own, *more):
        trained.append(own.run_directory.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(own, *more)

    monkeypatch.setattr(module, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    fit(replace(config, ckpt_path="last"))
    assert trained == ["fold_1", "fold_2", "fold_2", "fold_3", "again"]
    first, second = (load_model(one.output)[0].state_dict() for one in (whole, config))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])


def test_a_fold_that_ended_before_it_was_recorded_is_complete(folded, monkeypatch):
    config, trained, write = folded(), [], module.write_fold

    def interrupted(*what):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_fold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    monkeypatch.setattr(module, "write_fold", lambda own, h: trained.append(h) or write(own, h))
    fit(replace(config, ckpt_path="last"))
    assert len(trained) == 3 and len({len(history) for history in trained}) == 1


def test_the_machine_may_change_before_folds_are_resumed(folded, monkeypatch, tmp_path):
    config = folded()
    fit(config)
    moved = tmp_path / "moved.h5"
    shutil.copyfile(config.data.train, moved)
    data = replace(config.data, train=str(moved), workers=2, cache_gigabytes=1.0)
    with pytest.raises(ValueError, match="had reached its end"):  # the folds are taken over
        fit(replace(config, data=data, ckpt_path="last"))


def test_a_signal_in_the_last_validation_of_a_fold_stops_all(folded, monkeypatch):
    config, train, trained = folded(), module._train, []

    def signalled(own, *more):
        trained.append(own.run_directory.name)
        done = train(own, *more)
        return done._replace(result=done.result._replace(signal=2))

    monkeypatch.setattr(module, "_train", signalled)
    assert fit(config).signal == 2 and trained == ["fold_1"]
    monkeypatch.undo()
    assert fit(replace(config, ckpt_path="last")).signal is None


def test_only_the_uncertainty_is_left_after_an_interruption_at_the_end(folded, monkeypatch):
    whole, config = folded(name="whole"), folded()
    fit(whole)

    def interrupted(*data):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "with_uncertainty", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    monkeypatch.undo()
    assert not read_card(config.output).uncertainty
    again = fit(replace(config, ckpt_path="last"))
    expected = read_card(whole.output).uncertainty
    assert expected and read_card(again.model).uncertainty == expected


def test_folds_with_other_options_are_not_taken_over(folded):
    config = folded()
    fit(config)
    other = replace(config, ckpt_path="last", loss=replace(config.loss, energy_weight=3.0))
    with pytest.raises(ValueError, match=r"other options \(loss.energy_weight 10.0 there, 3.0"):
        fit(other)


def test_a_complete_training_is_not_resumed_but_moved_aside_by_a_new_one(folded):
    config = folded()
    fit(config)
    with pytest.raises(ValueError, match="had reached its end"):
        fit(replace(config, ckpt_path="last"))
    fit(config)
    assert (Path(f"{config.run_directory}.1") / "fold_1" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1}, "2 or more"),
        ({"validation": "v.h5"}, "leave out one"),
        ({"theory": "PBE"}, "`data.folds` and `data.theory` cannot be combined"),
        ({"replay": "r.h5"}, "`data.folds` and `data.replay` cannot be combined"),
    ],
)
def test_options_that_contradict_folds_are_refused(folded, changes, message):
    config = folded()
    with pytest.raises(ValueError, match=message):
        replace(config, data=replace(config.data, **changes))


def test_a_checkpoint_other_than_the_last_cannot_be_resumed_with_folds(folded):
    with pytest.raises(ValueError, match="can only be last"):
        replace(folded(), ckpt_path="best")
