"""A callback that tells on stdout when training begins and what each validation found.

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
        """The first step is next."""
        print(BEGIN, flush=True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """All metrics are there."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print(VALIDATION + json.dumps(metrics), flush=True)
