"""Progress, learning rate, and when to validate."""

import math
import time

import pytest
import torch
from torch import nn

from tesseral.training.config import OptimizationConfig
from tesseral.training.ema import WeightAverage
from tesseral.training.schedule import Budget, Clock, ValidationPlan, learning_rate

CONFIG = OptimizationConfig(learning_rate=2.0, warmup=0.1, final_learning_rate=0.1)


def test_progress_is_that_of_the_limit_that_comes_first():
    budget = Budget(steps=100, seconds=10.0)
    assert budget.progress(20, 1.0) == 0.2
    assert budget.progress(20, 9.0) == 0.9


def test_progress_by_steps_alone_does_not_look_at_the_clock():
    assert Budget(steps=10).progress(5, 1e9) == 0.5


def test_progress_ends_at_one():
    assert Budget(seconds=10.0).progress(0, 11.0) == 1.0


def test_the_warm_up_is_linear():
    assert learning_rate(CONFIG, 0.05) == pytest.approx(1.0)
    assert learning_rate(CONFIG, 0.1) == pytest.approx(2.0)


def test_the_first_step_is_not_lost():
    assert learning_rate(CONFIG, 0.0) > 0


@pytest.mark.parametrize(("decay", "middle"), [("cosine", 1.1), ("linear", 1.1), ("none", 2.0)])
def test_the_decay_in_the_middle(decay, middle):
    config = OptimizationConfig(
        learning_rate=2.0, warmup=0.1, decay_start=0.1, final_learning_rate=0.1, decay=decay
    )
    assert learning_rate(config, 0.55) == pytest.approx(middle)


def test_the_decay_ends_with_the_training():
    assert learning_rate(CONFIG, 1.0) == pytest.approx(0.2)


def test_the_decay_starts_where_it_should():
    config = OptimizationConfig(learning_rate=2.0, warmup=0.1, decay_start=0.6)
    assert learning_rate(config, 0.6) == pytest.approx(2.0)
    assert learning_rate(config, 0.8) == pytest.approx(1.0)


def test_validations_every_so_many_steps():
    plan = ValidationPlan(3, Budget(steps=10))
    assert [step for step in range(1, 10) if plan.due(step, 0.0)] == [3, 6, 9]


def test_validations_are_spread_over_the_training():
    plan = ValidationPlan(None, Budget(steps=1000))
    times = []
    for step in range(1, 1001):
        if plan.due(step, 0.0):
            plan.done(step, 0.0, 0.0)
            times.append(step)
    assert times == list(range(50, 1001, 50))


def test_slow_validations_take_a_small_part_of_the_time():
    plan, elapsed, number = ValidationPlan(None, Budget(seconds=100.0)), 0.0, 0
    while elapsed < 100.0:
        elapsed += 0.1
        if plan.due(0, elapsed):
            plan.done(0, elapsed, 2.0)
            elapsed += 2.0
            number += 1
    assert 2 <= number <= 3


def linear(value):
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def update(average, n):
    average.update(torch.tensor(average.share(n)))


def test_the_average_moves_by_one_minus_the_decay():
    source, average = linear(1.0), linear(0.0)
    update(WeightAverage(source, average, 0.9), 10**6)
    assert average.weight.item() == pytest.approx(0.1)


def test_the_average_starts_fast():
    source, average = linear(1.0), linear(0.0)
    update(WeightAverage(source, average, 0.999), 0)
    assert average.weight.item() == pytest.approx(0.9)


def test_no_decay_copies_the_weights():
    source, average = linear(math.pi), linear(0.0)
    update(WeightAverage(source, average, 0.0), 5)
    torch.testing.assert_close(source.weight, average.weight)


def test_a_clock_of_processor_time_stands_still_while_the_process_sleeps():
    wall, cpu = Clock("wall"), Clock("cpu")
    for clock in (wall, cpu):
        clock.start()
    time.sleep(0.2)
    assert wall.elapsed >= 0.2
    assert cpu.elapsed < 0.2
