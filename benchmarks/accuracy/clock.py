"""A callback that prints the start of the training and the results of each validation.

NequIP loads it in its own environment; see ``programs.nequip``.
"""

from __future__ import annotations

import json
from typing import Any

import lightning

BEGIN = "clock: training begins"
VALIDATION = "clock: validation "


class Clock(lightning.Callback):
    """Print lines that ``programs.nequip`` reads."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Print the start, just before the first step."""
        print(BEGIN, flush=True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the metrics of the validation."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print(VALIDATION + json.dumps(metrics), flush=True)
