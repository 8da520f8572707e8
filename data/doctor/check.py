"""Check of dataset files before a training, and the cleaned copy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tesseral.data.doctor.checkup import (
    MAX_ATOMS,
    Checkup,
    check_between,
    check_set,
    check_split,
    merge,
)
from tesseral.data.doctor.repair import write_cleaned
from tesseral.data.doctor.sample import Sample, read_sample
from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.labels import LABELS
from tesseral.data.loading.splits import SPLITS
from tesseral.data.store.read import Store, open_store
from tesseral.files import json_text, write_text

STORES = (".h5", ".hdf5")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Which datasets to check, and for which training.

    Args:
        files: datasets (or files that ASE reads, with the usual names and units of labels). Of
            several, the first is what is trained on, and the others must not share structures with
            it.
        cutoff: Å, of the potential.
        split: how fit would split the first dataset if it were the only one: auto, group, blocks
            or random.
        validation_fraction: as in fit.
        seed: as data.seed in fit.
        json: file for the findings with the indices of all structures, counted from 0.
        fix: dataset to write, a copy of the first without what can be mended for sure: signs and
            units of labels, labels of zero (they become missing), copies and structures with
            labels of another one (they are left out).
        max_atoms: larger sets are checked in a random part of so many atoms, unless fix is given.
    """

    files: list[str]
    cutoff: float = 5.0
    split: str = "auto"
    validation_fraction: float = 0.1
    seed: int = 0
    json: str | None = None
    fix: str | None = None
    max_atoms: int = MAX_ATOMS

    def __post_init__(self) -> None:
        """Refuse what cannot be checked, before anything is read."""
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
                raise ValueError(f"the cleaned copy {self.fix} should end in .h5")
            if Path(self.fix).exists():
                raise FileExistsError(f"{self.fix} exists; choose another name for the copy")


class Checked(NamedTuple):
    """Result of a check of dataset files."""

    checkups: list[Checkup]  # file by file; of the cleaned copy in place of the first, if any
    mended: list[str] | None  # changes made in the cleaned copy; None without one


def check(config: CheckConfig, show: Callable[[Checkup], None] | None = None) -> Checked:
    """Check dataset files.

    Args:
        config: what to check.
        show: called with the result of each file as soon as it is there.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be read.
    """
    mended = None
    with tempfile.TemporaryDirectory() as folder:
        limit = 2**62 if config.fix is not None else config.max_atoms
        samples = [
            read_sample(_open(name, Path(folder) / f"{number}"), limit)
            for number, name in enumerate(config.files)
        ]
        checkups = []
        for checkup in _check(config, samples):
            checkups.append(checkup)
            if show is not None:
                show(checkup)
        if config.json is not None:
            write_text(config.json, json_text([one.as_dict() for one in checkups], indent=1))
        if config.fix is not None:
            mended = write_cleaned(samples[0].store, checkups[0].findings, Path(config.fix))
            copy = read_sample(open_store(config.fix), config.max_atoms)
            checkups[0] = check_set(copy, cutoff=config.cutoff)
    return Checked(checkups, mended)


def _open(name: str, folder: Path) -> Store:
    """A dataset; another file is imported into the folder first."""
    path = Path(name)
    if path.suffix in STORES:
        return open_store(path)
    folder.mkdir()
    output = folder / f"{path.stem}.h5"
    import_structures(ImportConfig(sources=[name], output=str(output), allow_missing=list(LABELS)))
    return open_store(output)


def _check(config: CheckConfig, samples: list[Sample]) -> Iterator[Checkup]:
    """All files, each with what it has in common with the first."""
    for number, sample in enumerate(samples):
        parts = [check_set(sample, cutoff=config.cutoff)]
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
