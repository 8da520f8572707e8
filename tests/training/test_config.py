"""Configuration values that are refused."""

from pathlib import Path

import pytest

from tesseral.data.loading.datamodule import DataConfig
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.training.config import FitConfig, LossConfig, OptimizationConfig, TrainerConfig

DATA = DataConfig(train="a.h5")


def test_an_hour_is_trained_without_any_limit():
    assert TrainerConfig().seconds == 3600


def test_a_limit_in_steps_takes_the_limit_in_time_away():
    assert TrainerConfig(max_steps=5).seconds == float("inf")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (FacetConfig, {"l_max_message": -1}, "`l_max_message` is -1"),
        (LossConfig, {"forces_weight": -1.0}, "`forces_weight` is -1.0"),
        (
            LossConfig,
            {"energy_weight": 0.0, "forces_weight": 0.0, "stress_weight": 0.0},
            "nothing would be trained",
        ),
        (LossConfig, {"symmetry_weight": -1.0}, "`symmetry_weight` is -1.0"),
        (
            FitConfig,
            {"data": DATA, "output": "a.safetensors", "loss": LossConfig(symmetry_weight=1.0)},
            "`symmetry_weight` is 1.0, but this potential is exactly symmetric",
        ),
        (LossConfig, {"huber_delta": 0.0}, "`huber_delta` is 0.0"),
        (OptimizationConfig, {"learning_rate": 0.0}, "`learning_rate` is 0.0"),
        (OptimizationConfig, {"warmup": 1.5}, "`warmup` is 1.5"),
        (OptimizationConfig, {"ema_decay": 1.0}, "`ema_decay` is 1.0"),
        (OptimizationConfig, {"gradient_clip": -1.0}, "`gradient_clip` is -1.0"),
        (TrainerConfig, {"devices": 0}, "`trainer.devices` is 0"),
        (TrainerConfig, {"max_time": "soon"}, "'soon' is not a duration"),
    ],
)
def test_impossible_values_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_an_output_that_could_not_be_loaded_is_refused():
    with pytest.raises(ValueError, match=r"name it ….safetensors"):
        FitConfig(data=DATA, output="model.pt")


def test_the_run_directory_stands_beside_the_output():
    config = FitConfig(data=DATA, output="a/model.safetensors")
    assert config.run_directory == Path("a/runs/model")


@pytest.mark.parametrize(
    ("given", "path"), [("last", "a/runs/m/last.ckpt"), ("x/y.ckpt", "x/y.ckpt"), (None, None)]
)
def test_where_the_checkpoint_is(given, path):
    config = FitConfig(data=DATA, output="a/m.safetensors", ckpt_path=given)
    assert config.checkpoint == (None if path is None else Path(path))
