"""Logs of W&B and MLflow, which stay in the folder of the training unless an option sends them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tesseral.training.fit import fit


def logs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_nothing_but_csv_and_tensorboard_by_default(fit_config):
    config = fit_config()
    fit(config)
    assert logs(config.run_directory) == {"csv", "tensorboard"}


@pytest.mark.parametrize("name, value", [("wandb", "offline"), ("mlflow", "local")])
def test_a_logger_that_is_not_installed_is_named_before_anything_is_written(
    fit_config, monkeypatch, name, value
):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    config = fit_config(**{name: value})
    with pytest.raises(ValueError, match=rf"`trainer.{name}` .*'tesseral\[{name}\]'"):
        fit(config)
    assert not config.run_directory.exists()


@pytest.mark.slow
def test_mlflow_keeps_settings_and_errors_in_the_folder(fit_config):
    for package in ("mlflow", "alembic"):
        pytest.importorskip(package, reason="needs tesseral[mlflow]")
    from mlflow.tracking import MlflowClient

    config = fit_config(mlflow="local", project="copper", validate_every=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow and its dependencies
        result = fit(config)
        client = MlflowClient(f"sqlite:///{config.run_directory / 'mlflow.db'}")
        (experiment,) = [each for each in client.search_experiments() if each.name == "copper"]
        (run,) = client.search_runs([experiment.experiment_id])
        errors = client.get_metric_history(run.info.run_id, "validation/forces_mae")
    assert run.info.run_name == "model" and run.info.status == "FINISHED"
    assert run.data.params["trainer/max_steps"] == "6"
    assert [each.step for each in errors] == [entry["step"] for entry in result.history]


@pytest.mark.slow
def test_wandb_writes_to_the_folder_without_a_network(fit_config, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_API_KEY", "")
    config = fit_config(wandb="offline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of W&B and its dependencies
        fit(config)
    (run,) = (config.run_directory / "wandb").glob("offline-run-*")
    (file,) = run.glob("*.wandb")
    assert file.stat().st_size > 0
