"""Check of dataset files before a training, and the corrected copy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tesseral.data.doctor.checkup import (
    Checkup,
    Predict,
    check_between,
    check_set,
    check_split,
    merge,
)
from tesseral.data.doctor.config import CheckConfig
from tesseral.data.doctor.repair import write_cleaned
from tesseral.data.doctor.sample import Sample, read_sample
from tesseral.data.imports.importer import open_dataset
from tesseral.data.store.read import open_store
from tesseral.files import json_text, write_text


class Checked(NamedTuple):
    """Result of a check of dataset files."""

    checkups: list[Checkup]  # one per file; that of the corrected copy replaces the first, if any
    mended: list[str] | None  # changes made in the corrected copy; None without one


def check(
    config: CheckConfig,
    show: Callable[[Checkup], None] | None = None,
    predict: Predict | None = None,
) -> Checked:
    """Check dataset files.

    Args:
        config: options of the check.
        show: callback with the result of each file as soon as it is available.
        predict: function that fits a model to the energies and forces of structures and returns its
            stresses, such as `training.stresses.fitted_stresses`.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be read, or ``thorough`` is set without ``predict``.
    """
    if config.thorough and predict is None:
        raise ValueError("`thorough` needs a function that predicts stresses; pass `predict`")
    mended = None
    with tempfile.TemporaryDirectory() as folder:
        limit = 2**62 if config.fix is not None else config.max_atoms
        samples = [
            read_sample(open_dataset(name, Path(folder) / f"{number}"), limit)
            for number, name in enumerate(config.files)
        ]
        checkups = []
        for checkup in _check(config, samples, predict):
            checkups.append(checkup)
            if show is not None:
                show(checkup)
        if config.json is not None:
            write_text(config.json, json_text([one.as_dict() for one in checkups], indent=1))
        if config.fix is not None:
            mended = write_cleaned(samples[0].store, checkups[0].findings, Path(config.fix))
            copy = read_sample(open_store(config.fix), config.max_atoms)
            checkups[0] = check_set(
                copy, cutoff=config.cutoff, predict=predict, thorough=config.thorough
            )
    return Checked(checkups, mended)


def _check(
    config: CheckConfig, samples: list[Sample], predict: Predict | None
) -> Iterator[Checkup]:
    """Check all files, each also for structures that it shares with the first."""
    for number, sample in enumerate(samples):
        parts = [check_set(sample, cutoff=config.cutoff, predict=predict, thorough=config.thorough)]
        if number > 0:
            parts.append(check_between(samples[0], sample))
        elif len(samples) == 1:
            parts.append(
                check_split(
                    sample,
                    method=config.split,
                    fraction=config.validation_fraction,
                    seed=config.seed,
                )
            )
        yield merge(parts)
