"""Options of a training that suit the device, where the configuration leaves them open."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import torch

from tesseral.data.loading.config import BATCH_EDGES, BATCH_STRUCTURES
from tesseral.training.config import FitConfig, TrainerConfig

LARGER = 4  # times as large on a GPU, where a step of so few atoms takes hardly longer
WORKERS = 4  # on a GPU, whose steps are shorter than the time to join a batch


def uses_gpu(settings: TrainerConfig) -> bool:
    """Whether a training runs on a GPU of CUDA; Apple's have no float64."""
    chosen = settings.accelerator
    return chosen == "gpu" or (chosen == "auto" and torch.cuda.is_available())


def chosen_for(config: FitConfig, gpu: bool) -> FitConfig:
    """The configuration with batches, learning rate and workers.

    Batches are larger on a GPU, unless the number of steps or epochs is given, whose meaning would
    change. The learning rate is then multiplied by the root of how many times larger they are: the
    noise of a gradient falls with the root of the size of a batch, and that of the weights of an
    optimiser of Adam's kind stays the same.

    Args:
        config: values that are given in it are kept.
        gpu: whether the training runs on a GPU.
    """
    data, optimization, limits = config.data, config.optimization, config.trainer
    timed = limits.max_steps is None and limits.max_epochs is None
    times = LARGER if gpu and timed else 1
    structures, edges = data.batch_structures, data.batch_edges
    if structures is not None or edges is not None:  # the other limit is the usual one
        times = 1
    rate = optimization.learning_rate
    if rate is None:
        rate = optimization.rate * math.sqrt(times)
    workers = data.workers
    if workers is None:
        workers = min(WORKERS, (os.cpu_count() or 1) - 1) if gpu else 0
    return replace(
        config,
        data=replace(
            data,
            batch_structures=structures or BATCH_STRUCTURES * times,
            batch_edges=edges or BATCH_EDGES * times,
            workers=workers,
        ),
        optimization=replace(optimization, learning_rate=rate),
    )


def batch_line(config: FitConfig) -> str:
    """Batches, learning rate and workers, for the opening of a training on a GPU."""
    data = config.data
    return (
        f"on a GPU: batches of at most {data.batch_structures} structures and {data.batch_edges} "
        f"edges, learning rate {config.optimization.rate:g}, {data.workers} processes that prepare "
        "batches"
    )
