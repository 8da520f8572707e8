"""A training of a run that resumes: it goes on from its last checkpoint, and its model moves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tesseral.files import write_whole
from tesseral.training.checkpoints import CompleteError
from tesseral.training.config import FitConfig
from tesseral.training.fit import fit


def train(config: FitConfig, model: Path, console: Console | None) -> int | None:
    """Train, from the last checkpoint if there is one, and copy the complete model.

    Args:
        config: the training; its output is the model of the best validation so far.
        model: the model file that exists only when the training is complete; if it exists, nothing
            is done.
        console: console for progress; silent if None.

    Returns:
        The signal that stopped the training, if there was one.

    Raises:
        ValueError: something in the configuration or the data does not fit.
        DivergenceError: the training diverged.
    """
    if model.exists():
        return None
    signal = _trained(config, console)
    if signal is None:
        with write_whole(model) as temporary:
            shutil.copyfile(config.output, temporary)
    return signal


def _trained(config: FitConfig, console: Console | None) -> int | None:
    """Train to the end, from the last checkpoint if possible; the signal that stopped it."""
    resumed = replace(config, ckpt_path="last")
    if (resumed.checkpoint or Path()).is_file():
        try:
            return fit(resumed, console).signal
        except CompleteError as error:
            if Path(config.output).is_file():
                return None
            reason: ValueError = error
        except ValueError as error:  # it is of other data
            reason = error
        if console is not None:
            console.print(f"begins again: {reason}", markup=False, soft_wrap=True)
    return fit(config, console).signal
