"""ASE calculator of the mean of several potentials, which has smaller errors than each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from ase.calculators.mixing import LinearCombinationCalculator

from tesseral.calculators.ase import TesseralCalculator


class MeanCalculator(LinearCombinationCalculator):
    """Mean of the energies, forces and stresses of several potentials.

    Errors that the potentials do not share become smaller, most where labels are few. A step takes
    the time of all together; ``distill`` makes one potential of them.

    Attributes:
        members: calculators of the potentials.
        theory: level of theory; empty if that of a model is unknown.
    """

    def __init__(
        self,
        models: str | Path | Sequence[str | Path],
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Load the models.

        Args:
            models: model files, trained on the same level of theory.
            device: ``cpu``, ``cuda``, …. Default: a GPU if available.
            dtype: ``float32`` or ``float64``, the precision of the features. Default: that of
                each model.
            weights: weight of each model; they add up to 1. Default: equal.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: no models are given, one cannot be loaded, their levels of theory differ, or
                the weights do not fit.
        """
        if isinstance(models, str | Path):
            models = [models]
        if not models:
            raise ValueError("`models` is empty; give at least one model file")
        if weights is None:
            weights = [1 / len(models)] * len(models)
        if len(weights) != len(models) or not math.isclose(sum(weights), 1, rel_tol=1e-6):
            raise ValueError(
                f"`weights` is {list(weights)}; give one for each of the {len(models)} models, 1 "
                "together"
            )
        self.members = [TesseralCalculator(path, device=device, dtype=dtype) for path in models]
        super().__init__(self.members, list(weights))  # type: ignore[no-untyped-call]
        theories = {member.theory for member in self.members}
        known = sorted(theories - {""})
        if len(known) > 1:
            raise ValueError(
                f"`models` are of different levels of theory, {' and '.join(known)}; their "
                "energies cannot be averaged"
            )
        self.theory = theories.pop() if len(theories) == 1 else ""

    @property
    def device(self) -> torch.device:
        """Device of the potentials."""
        return self.members[0].device
