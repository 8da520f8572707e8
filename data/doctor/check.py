"""Check of dataset files before a training, and the corrected copy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tesseral.data.doctor.checkup import (
    MAX_ATOMS,
    Checkup,
    Predict,
    check_between,
    check_set,
    check_split,
    merge,
)
from tesseral.data.doctor.repair import write_cleaned
from tesseral.data.doctor.sample import Sample, read_sample
from tesseral.data.imports.importer import STORES, open_dataset
from tesseral.data.loading.splits import SPLITS
from tesseral.data.store.read import open_store
from tesseral.files import json_text, write_text


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Datasets to check, and the intended training.

    Args:
        files: datasets, or files ASE reads with standard label names and units. The first is the
            training set; the others must not share structures with it.
        cutoff: cutoff (Å) of the potential.
        split: split that fit would use if only the first dataset were given: auto, group, blocks
            or random.
        validation_fraction: as in fit.
        seed: as data.seed in fit.
        json: JSON file for the findings, with 0-based structure indices.
        fix: write a corrected copy of the first dataset. Signs and units are corrected, zero
            labels become missing, and duplicates and structures with the labels of another
            structure are removed; only unambiguous errors are changed.
        thorough: fit a small potential to energies and forces, which takes about a minute, and
            compare the stresses with it. Without this option it is done where a simpler model
            leaves doubts.
        max_atoms: larger datasets are checked on a random sample of this many atoms, unless fix is
            given.
    """

    files: list[str]
    cutoff: float = 5.0
    split: str = "auto"
    validation_fraction: float = 0.1
    seed: int = 0
    json: str | None = None
    fix: str | None = None
    thorough: bool = False
    max_atoms: int = MAX_ATOMS

    def __post_init__(self) -> None:
        """Reject invalid options before anything is read."""
        if not 0 < self.cutoff < 50:
            raise ValueError(f"cutoff is {self.cutoff} Å; use a positive distance, usually 4 to 6")
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is not one of {', '.join(SPLITS)}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}; it must be between 0 and 1"
            )
        if self.max_atoms < 1:
            raise ValueError(f"max_atoms is {self.max_atoms}; it must be 1 or more")
        if self.fix is not None:
            if Path(self.fix).suffix not in STORES:
                raise ValueError(f"the name of the corrected copy, {self.fix}, must end in .h5")
            if Path(self.fix).exists():
                raise FileExistsError(f"{self.fix} exists; choose another name for the copy")


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
