"""Progress of a training, and the learning rate that follows it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

from tesseral.training.config import OptimizationConfig


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a training: steps or seconds, whichever comes first; either may be infinite.

    Args:
        steps: updates of the weights.
        seconds: wall-clock time with validations, summed over resumed runs.
    """

    steps: float = math.inf
    seconds: float = math.inf

    def progress(self, step: int, elapsed: float) -> float:
        """Part of the training that is done, 0 to 1.

        Args:
            step: updates done.
            elapsed: seconds.
        """
        return min(1.0, max(step / self.steps, elapsed / self.seconds))


class Clock:
    """Seconds of training, going on from an earlier run where there was one."""

    def __init__(self, kind: Literal["wall", "cpu"] = "wall") -> None:
        """Stopped at 0; counts the time of this process alone where ``kind`` is cpu."""
        self._now = time.monotonic if kind == "wall" else time.process_time
        self._before = 0.0
        self._started: float | None = None

    def set(self, elapsed: float) -> None:
        """Take over the seconds of an earlier run."""
        self._before = elapsed

    def start(self) -> None:
        """Let it run."""
        self._started = self._now()

    @property
    def elapsed(self) -> float:
        """Seconds until now."""
        running = 0.0 if self._started is None else self._now() - self._started
        return self._before + running


def learning_rate(config: OptimizationConfig, progress: float) -> float:
    """Learning rate at a point of the training: linear warm-up, plateau, decay to the end.

    Args:
        config: largest rate and shape.
        progress: 0 to 1.
    """
    rise = 1.0 if config.warmup == 0 else min(1.0, progress / config.warmup)
    # The first step should do something, even where one step is the whole warm-up.
    rise = max(rise, 0.01)
    start = max(config.decay_start, config.warmup)
    fall = 0.0 if progress <= start else (progress - start) / (1.0 - start)
    if config.decay == "cosine":
        left = 0.5 + 0.5 * math.cos(math.pi * fall)
    else:
        left = 1.0 - fall if config.decay == "linear" else 1.0
    low = config.final_learning_rate
    return config.learning_rate * rise * (low + (1.0 - low) * left)


class ValidationPlan:
    """When to validate: every so many steps, or a number of times spread over the training."""

    TIMES = 20
    LARGEST_SHARE = 0.05  # of the time

    def __init__(self, every: int | None, budget: Budget) -> None:
        """Plan.

        Args:
            every: steps between validations; spread over the training if None.
            budget: of the training.
        """
        self.every = every
        self.budget = budget
        self.last_progress = 0.0
        self.last_elapsed = 0.0
        self.last_cost = 0.0

    def due(self, step: int, elapsed: float) -> bool:
        """Whether to validate after this step; the same answer to the same question on all ranks.

        Args:
            step: updates done.
            elapsed: seconds, agreed on by all ranks.
        """
        if self.every is not None:
            return step % self.every == 0
        part = self.budget.progress(step, elapsed) * self.TIMES
        if int(part) <= int(self.last_progress * self.TIMES):
            return False
        if math.isfinite(self.budget.seconds):
            return elapsed - self.last_elapsed >= self.last_cost / self.LARGEST_SHARE
        return True

    def done(self, step: int, elapsed: float, cost: float) -> None:
        """Take note of a validation.

        Args:
            step: updates done.
            elapsed: seconds, agreed on by all ranks.
            cost: seconds it took, agreed on by all ranks.
        """
        self.last_progress = self.budget.progress(step, elapsed)
        self.last_elapsed = elapsed
        self.last_cost = cost
