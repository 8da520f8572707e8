"""Options that a device gets where the configuration leaves them open."""

import pytest

from tesseral.data.loading.datamodule import DataConfig
from tesseral.training.config import FitConfig, OptimizationConfig, TrainerConfig
from tesseral.training.device import batch_line, chosen_for


def chosen(gpu=True, data=None, rate=None, **limits):
    config = FitConfig(
        data=DataConfig(train="a.h5", **(data or {})),
        output="m.safetensors",
        optimization=OptimizationConfig(learning_rate=rate),
        trainer=TrainerConfig(**limits),
    )
    found = chosen_for(config, gpu)
    data = found.data
    return data.batch_structures, data.batch_edges, found.optimization.learning_rate


def test_batches_on_a_gpu_are_larger_and_the_rate_grows_with_their_root():
    assert chosen(gpu=False) == (16, 4000, 0.01)
    assert chosen(max_time="5m") == (64, 16000, pytest.approx(0.02))


@pytest.mark.parametrize("limits", [{"max_steps": 10}, {"max_epochs": 2, "max_time": "5m"}])
def test_a_number_of_steps_keeps_its_meaning(limits):
    assert chosen(**limits) == (16, 4000, 0.01)


def test_values_of_the_user_are_kept():
    assert chosen(data={"batch_edges": 5000}) == (16, 5000, 0.01)
    assert chosen(data={"batch_structures": 3}, rate=0.5) == (3, 4000, 0.5)
    assert chosen(rate=0.5) == (64, 16000, 0.5)


def test_the_line_says_all():
    config = FitConfig(data=DataConfig(train="a.h5", workers=0), output="m.safetensors")
    line = batch_line(chosen_for(config, True))
    assert "64 structures and 16000 edges, learning rate 0.02, 0 processes" in line
