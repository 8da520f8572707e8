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
        seconds: wall-clock time including validation, summed over resumed runs.
    """

    steps: float = math.inf
    seconds: float = math.inf

    def progress(self, step: int, elapsed: float) -> float:
        """Completed fraction of the training, 0 to 1.

        Args:
            step: number of completed updates.
            elapsed: elapsed time (s).
        """
        return min(1.0, max(step / self.steps, elapsed / self.seconds))


class Clock:
    """Elapsed time of a training (s), continued from an earlier run if there was one."""

    def __init__(self, kind: Literal["wall", "cpu"] = "wall") -> None:
        """Create a stopped clock at 0; ``cpu`` counts the CPU time of this process only."""
        self._now = time.monotonic if kind == "wall" else time.process_time
        self._before = 0.0
        self._started: float | None = None

    def set(self, elapsed: float) -> None:
        """Set the time (s) of an earlier run."""
        self._before = elapsed

    def start(self) -> None:
        """Start the clock."""
        self._started = self._now()

    @property
    def elapsed(self) -> float:
        """Elapsed time (s)."""
        running = 0.0 if self._started is None else self._now() - self._started
        return self._before + running


def learning_rate(config: OptimizationConfig, progress: float) -> float:
    """Learning rate at a point of the training: linear warm-up, plateau, decay to the end.

    Args:
        config: maximum rate and shape.
        progress: completed fraction of the training, 0 to 1.
    """
    rise = 1.0 if config.warmup == 0 else min(1.0, progress / config.warmup)
    # The first step must not be zero, even if the warm-up is a single step.
    rise = max(rise, 0.01)
    start = max(config.decay_start, config.warmup)
    fall = 0.0 if progress <= start else (progress - start) / (1.0 - start)
    if config.decay == "cosine":
        left = 0.5 + 0.5 * math.cos(math.pi * fall)
    else:
        left = 1.0 - fall if config.decay == "linear" else 1.0
    low = config.final_learning_rate
    return config.rate * rise * (low + (1.0 - low) * left)


class ValidationPlan:
    """Schedule of validations: at a fixed interval of steps, or spread over the training."""

    TIMES = 20
    LARGEST_SHARE = 0.05  # of the time

    def __init__(self, every: int | None, budget: Budget) -> None:
        """Create the schedule.

        Args:
            every: number of steps between validations; None spreads them over the training.
            budget: limits of the training.
        """
        self.every = every
        self.budget = budget
        self.last_progress = 0.0
        self.last_elapsed = 0.0
        self.last_cost = 0.0

    def due(self, step: int, elapsed: float) -> bool:
        """Return whether to validate after this step; deterministic, so that all ranks agree.

        Args:
            step: number of completed updates.
            elapsed: elapsed time (s), the same on all ranks.
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
        """Record a validation.

        Args:
            step: number of completed updates.
            elapsed: elapsed time (s), the same on all ranks.
            cost: duration of the validation (s), the same on all ranks.
        """
        self.last_progress = self.budget.progress(step, elapsed)
        self.last_elapsed = elapsed
        self.last_cost = cost
