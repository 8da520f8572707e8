"""Whole trainings of a tiny potential on a dozen four-atom cells."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tesseral.data.loading.datasets import evaluation_loader
from tesseral.data.loading.statistics import closest_distances
from tesseral.data.store.read import open_store, write_store
from tesseral.deploy.modelfile import load_model, read_card
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.ponita import PONITAConfig
from tesseral.potentials.blocks.short_range import square_pairs
from tesseral.potentials.derivatives import predict
from tesseral.training.fit import fit
from tesseral.training.module import PotentialModule

RANDOM = PONITAConfig(
    cutoff=3.6,
    layers=1,
    channels=4,
    l_max=1,
    orientations=6,
    random_orientations=True,
)
RELAXED = FacetConfig(cutoff=3.6, layers=1, channels=4, grid_channels=4, l_max=1, relaxed=True)


def weights(path):
    return load_model(path)[0].state_dict()


def assert_same(first, second, tolerance=1e-12):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=tolerance, atol=tolerance)


def test_the_loss_falls(fit_config):
    config = fit_config(max_steps=80, validate_every=20, optimization={"learning_rate": 0.02})
    history = fit(config).history
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


@pytest.mark.parametrize("model", [None, RANDOM], ids=["facet", "random"])
def test_the_model_file_is_the_best_average_with_its_errors(fit_config, emt_files, model):
    config = fit_config(max_steps=12, validate_every=6, model=model)
    result = fit(config)
    potential, card = load_model(config.output)
    store = open_store(emt_files[1])
    (batch,) = evaluation_loader(store, card.elements, config.model.cutoff)
    off = (predict(potential, batch.graph).forces - batch.labels.forces).abs().mean()
    assert card.errors["validation"]["forces"]["mae"] == pytest.approx(1e3 * float(off), rel=1e-6)
    assert result.best["forces_mae"] == card.errors["validation"]["forces"]["mae"]
    assert card.dtype == "float64"
    assert card.training["data"]["train"]["structures"] == 12
    assert card.training["steps"] == result.best["step"]


def test_the_same_seed_gives_the_same_weights(fit_config):
    first, second = fit_config("first"), fit_config("second")
    fit(first)
    fit(second)
    assert_same(weights(first.output), weights(second.output), tolerance=0)


def test_the_repulsion_of_the_nuclei_begins_below_the_distances_of_the_data(fit_config, emt_files):
    """The weights are those of a training without it, to the last digit."""
    joined, plain = fit_config("joined"), replace(fit_config("plain"), short_range=False)
    fit(joined)
    fit(plain)
    assert_same(weights(joined.output), weights(plain.output), tolerance=0)
    card = read_card(joined.output)
    assert not read_card(plain.output).inner_radii
    inner = square_pairs(card.inner_radii, len(card.elements))
    store = open_store(emt_files[0])
    found = closest_distances(store, np.arange(len(store)), card.elements, 5.0)
    assert (inner.numpy() <= 0.95 * found).all() and (inner > 1.0).all()


# At the end of an epoch of three steps and within; and where steps draw random orientations or
# broken components have moments of their own, and move even by noise.
@pytest.mark.parametrize(
    "stop, model", [(3, None), (5, None), (6, None), (5, RANDOM), (5, RELAXED)]
)
def test_a_resumed_training_ends_with_the_same_weights(fit_config, monkeypatch, stop, model):
    settings = {
        **{"max_steps": 8, "validate_every": 100, "model": model},
        "optimization": {"relaxed_weight_decay": 0.0},
    }
    whole = fit_config("whole", **settings)
    fit(whole)
    parts = fit_config("parts", **settings)
    from tesseral.training.callback import FitRun

    step = FitRun.on_train_batch_end

    def interrupted(self, trainer, pl_module, *rest):
        pl_module.stopping = trainer.global_step == stop
        step(self, trainer, pl_module, *rest)

    monkeypatch.setattr(FitRun, "on_train_batch_end", interrupted)
    assert fit(parts).history[-1]["step"] == stop
    monkeypatch.undo()
    again = fit_config("parts", **settings, ckpt_path="last")
    assert fit(again).history[-1]["step"] == 8
    both = [torch.load(c.run_directory / "last.ckpt", weights_only=True) for c in (whole, again)]
    assert_same(both[0]["state_dict"], both[1]["state_dict"], tolerance=0)  # weights and average
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in both]
    for index in moments[0]:
        assert_same(moments[0][index], moments[1][index], tolerance=0)


def test_the_elapsed_time_goes_on_after_a_resume(fit_config):
    first = fit(fit_config(max_steps=3))
    screen = Console(file=io.StringIO(), width=100)
    second = fit(fit_config(max_steps=4, ckpt_path="last"), screen)
    assert "\nresumes at step 3, after 0:0" in screen.file.getvalue()
    assert second.history[-1]["elapsed"] > first.history[-1]["elapsed"]
    assert len(second.history) == len(first.history) + 1


def test_a_complete_training_is_not_resumed(fit_config):
    fit(fit_config(max_steps=2))
    with pytest.raises(ValueError, match=r"had reached its end after 2 steps.*max_steps"):
        fit(fit_config(max_steps=2, ckpt_path="last"))


def test_a_second_ctrl_c_does_not_end_the_program_of_a_caller(fit_config, monkeypatch):
    """Lightning would end it with `sys.exit`."""

    def interrupted(self, *more):
        raise KeyboardInterrupt

    monkeypatch.setattr(PotentialModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(fit_config(max_steps=2))


def test_a_training_interrupted_before_its_uncertainty_needs_nothing_else(fit_config, monkeypatch):
    from tesseral.training import fit as module

    def interrupted(*data):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "with_uncertainty", interrupted)
    config = fit_config(max_steps=2)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    monkeypatch.undo()
    before = read_card(config.output)
    assert not before.uncertainty
    again = fit(replace(config, ckpt_path="last"))
    after = read_card(again.model)
    assert after.uncertainty and after.training == before.training
    assert again.history[-1]["step"] == 2 and again.signal is None
    with pytest.raises(ValueError, match="had reached its end"):
        fit(replace(config, ckpt_path="last"))


def test_a_checkpoint_with_the_options_of_all_architectures_is_resumed(fit_config):
    """As tesseral wrote them before each architecture had its own configuration."""
    first = fit_config(max_steps=3)
    fit(first)
    path = first.run_directory / "last.ckpt"
    content = torch.load(path, weights_only=True)
    model = content["callbacks"]["FitRun"]["identity"]["model"]
    flat = {"orientations": 26, "kinks": None, "gates": "sigmoid", "move_atoms": True, **model}
    content["callbacks"]["FitRun"]["identity"]["model"] = flat
    torch.save(content, path)
    again = fit_config(max_steps=4, ckpt_path="last")
    assert fit(again).history[-1]["step"] == 4
    other = fit_config(max_steps=5, ckpt_path="last", model=replace(first.model, channels=5))
    with pytest.raises(ValueError, match="other model"):
        fit(other)


def test_a_checkpoint_of_another_model_is_refused(fit_config):
    fit(fit_config(max_steps=2))
    other = fit_config(max_steps=4, ckpt_path="last", optimization={"dtype": "float32"})
    with pytest.raises(ValueError, match=r"other dtype \(float64 there, float32 here\)"):
        fit(other)


def test_a_missing_checkpoint_is_named(fit_config):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*last\.ckpt"):
        fit(fit_config(ckpt_path="last"))


def test_a_file_that_is_no_checkpoint_is_refused(fit_config, tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not a checkpoint of train-potential fit"):
        fit(fit_config(ckpt_path=str(path)))


def test_an_earlier_training_is_put_aside(fit_config):
    config = fit_config(max_steps=1)
    first = fit(config).model.read_bytes()
    fit(config)
    assert (config.run_directory.with_name("model.1") / "last.ckpt").is_file()
    assert (config.run_directory / "last.ckpt").is_file()
    assert Path(config.output).with_name("model.1.safetensors").read_bytes() == first


def test_a_gpu_that_is_not_there_is_named(fit_config, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="`trainer.accelerator` is gpu, but PyTorch .* finds no"):
        fit(fit_config(accelerator="gpu"))


def test_a_training_by_the_clock_ends_in_time_with_the_schedule(fit_config):
    history = fit(fit_config(max_steps=None, max_time="2s", clock="cpu")).history
    assert 2.0 <= history[-1]["elapsed"] < 4.0  # of the processor, on a busy machine too
    assert len(history) >= 2


def test_logs_and_plots_are_written(fit_config):
    config = fit_config(max_steps=4, validate_every=2, log_every_n_steps=2)
    fit(config)
    (table,) = config.run_directory.glob("csv/version_0/metrics.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["step"] for row in rows} == {"2", "4"}
    assert any(float(row["train/loss"] or "nan") > 0 for row in rows)
    assert any(float(row["validation/forces_mae"] or "nan") > 0 for row in rows)
    assert (config.run_directory / "learning_curves.png").stat().st_size > 1000
    assert list(config.run_directory.glob("tensorboard/version_0/events*"))


def test_without_a_console_nothing_is_printed(fit_config, capfd):
    fit(fit_config(max_steps=2))
    fit(fit_config(max_steps=2))  # moves the earlier training aside
    assert capfd.readouterr() == ("", "")


def test_plain_lines_are_written_where_there_is_no_terminal(fit_config):
    out = io.StringIO()
    fit(fit_config(max_steps=4, validate_every=2), Console(file=out, width=80))
    text = out.getvalue()
    assert "12 structures with 48 atoms of Al Cu to train on, 4 to validate" in text
    assert re.findall(r"^ +\d+:\d\d +[\d.]+% +(\d+) ", text, re.MULTILINE) == ["2", "4"]
    assert max(map(len, text.splitlines()[3:])) <= 120


def test_a_live_line_shows_errors_speed_and_time_left(fit_config):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200)
    fit(fit_config(max_steps=None, max_time="2s", enable_progress_bar=True), console)
    for part in ("meV/atom", "meV/Å", "atoms/s", "left", "validation"):
        assert part in out.getvalue()


def test_missing_labels_do_not_hinder(fit_config, emt_files, tmp_path):
    structures = list(open_store(emt_files[0]))
    nan = float("nan")
    structures[0] = structures[0]._replace(forces=np.full((4, 3), nan), stress=np.full((3, 3), nan))
    structures[1] = structures[1]._replace(energy=nan)
    write_store(tmp_path / "gaps.h5", structures)
    config = fit_config(max_steps=6)
    config = replace(config, data=replace(config.data, train=str(tmp_path / "gaps.h5")))
    fit(config)
    assert np.isfinite(read_card(config.output).errors["validation"]["forces"]["mae"])


def test_the_best_weights_survive_a_resume_that_makes_things_worse(fit_config):
    first = fit_config(max_steps=6)
    best = fit(first).best["step"]
    good = weights(first.output)
    worse = fit_config(max_steps=9, ckpt_path="last", optimization={"learning_rate": 3.0})
    result = fit(worse)
    assert result.best["step"] == best and result.history[-1]["step"] == 9
    assert_same(good, weights(worse.output), tolerance=0)
