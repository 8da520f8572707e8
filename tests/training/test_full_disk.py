"""Trainings on a full disk: the message names the file, the model and the checkpoint."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tesseral.deploy.modelfile import load_model
from tesseral.training import fit as fit_module
from tesseral.training.fit import fit
from tesseral.training.plots import save_figure


def test_a_model_that_does_not_fit(fit_config, small_files):
    config = fit_config()
    small_files(6_000)
    with pytest.raises(
        OSError, match="model.safetensors cannot be written: file too large"
    ) as found:
        fit(config)
    assert str(found.value).endswith(
        "no model was written; there is no checkpoint yet, so start it again"
    )
    assert not Path(config.output).exists()


def test_a_checkpoint_that_does_not_fit_leaves_the_model(fit_config, small_files, tmp_path):
    config = fit_config(max_steps=2, validate_every=2)
    fit(config)
    model, checkpoint = Path(config.output), config.run_directory / "last.ckpt"
    sizes = model.stat().st_size, checkpoint.stat().st_size
    assert sizes[0] < sizes[1]
    model.unlink()
    small_files(sum(sizes) // 2)
    with pytest.raises(OSError, match=r"last\.ckpt cannot be written: file too large") as found:
        fit(config)
    assert f"{model} has the weights of step 2; there is no checkpoint yet" in str(found.value)
    load_model(model)
    assert not list(tmp_path.rglob("*.tmp")) and not checkpoint.exists()


def test_a_later_checkpoint_that_does_not_fit_leaves_the_earlier(fit_config, monkeypatch):
    config = fit_config(max_steps=6, validate_every=2)
    save = fit_module.FitRun._save

    def full(self, trainer, module, name):
        if trainer.global_step == 4:
            raise OSError("last.ckpt cannot be written: full")
        save(self, trainer, module, name)

    monkeypatch.setattr(fit_module.FitRun, "_save", full)
    with pytest.raises(OSError, match=r"of step \d; to resume from .*last\.ckpt of step 2, run it"):
        fit(config)
    assert (config.run_directory / "last.ckpt").exists()


def test_logs_that_do_not_fit_are_named(fit_config, small_files, capfd):
    config = fit_config()
    small_files(10)
    with pytest.raises(OSError, match=re.escape(f"the logs in {config.run_directory} cannot be")):
        fit(config)
    assert "Traceback" not in capfd.readouterr().err


def test_curves_that_do_not_fit_leave_a_complete_model(fit_config, monkeypatch):
    config = fit_config(max_steps=2)

    def full(history, path):
        raise OSError(f"{path} cannot be written: full")

    monkeypatch.setattr(fit_module, "plot_learning_curves", full)
    with pytest.raises(
        OSError, match=r"curves\.png cannot be written: full; the model .* complete"
    ):
        fit(config)
    load_model(config.output)


def test_figures_are_whole(tmp_path, small_files):
    figure = Figure()
    figure.subplots().plot(np.arange(3))
    save_figure(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    save_figure(figure, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    small_files(500)
    with pytest.raises(OSError, match=r"a\.png cannot be written: file too large$"):
        save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a.svg"]
