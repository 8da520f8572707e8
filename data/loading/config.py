"""Options of the data of a training."""

from __future__ import annotations

import os
from dataclasses import dataclass

SPLITS = ("auto", "group", "blocks", "random")
LARGEST = 10**12  # structures or edges of a batch
BATCH_STRUCTURES, BATCH_EDGES = 16, 4_000  # where nothing else is chosen
PER_CORE = 16  # processes that prepare batches


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training and validation data, and their batches.

    Args:
        train: training set: dataset file made by ``train-potential data import``.
        validation: validation set: dataset file. By default a part of ``train`` is split off.
        validation_fraction: fraction of ``train`` to use for validation if no validation file is
            given.
        folds: train this many times, each time with another part of ``train`` held out, so that
            every structure is predicted by a model that has not seen it; then train the model
            file on all of it. For few structures, in place of one validation part.
        split: how to split off the validation structures: ``group`` (whole groups), ``blocks``
            (runs of consecutive structures of each group or config type), ``random`` (single
            structures, whose neighbours in a trajectory stay in the training set) or ``auto``
            (``group`` if there are many groups or many molecules, otherwise ``blocks``).
        batch_structures: maximum number of structures in a training batch of one process. Default:
            16; on a GPU 64, if the training is limited by time only and no limit of a batch is set.
        batch_edges: maximum number of edges (neighbour pairs) in a batch of one process; limits
            the memory, and is the limit that applies to cells of more than a few tens of atoms.
            Default: 4000; on a GPU 16000, as for batch_structures.
        workers: number of processes that prepare batches; 0 prepares them in the main process,
            which is best for small sets on a CPU. Default: 0; on a GPU up to 4.
        seed: random seed of the split and the shuffling.
        cache_gigabytes: memory (GB) for neighbour lists that are kept between epochs.
        isolated_energies: energies of isolated atoms (eV) by chemical symbol, used as reference
            energies, those of ``theory`` if it is given. Default: from isolated atoms in ``train``,
            otherwise least squares.
        theory: level of theory that the model file predicts, when training on several levels of
            theory in ``train``. By default they are not distinguished.
        replay: dataset of the earlier training, from which structures are mixed in so that
            fine-tuning does not forget it.
        replay_ratio: number of ``replay`` structures per structure of ``train``.
    """

    train: str
    validation: str | None = None
    validation_fraction: float = 0.1
    folds: int | None = None
    split: str = "auto"
    batch_structures: int | None = None
    batch_edges: int | None = None
    workers: int | None = None
    seed: int = 0
    cache_gigabytes: float = 2.0
    isolated_energies: dict[str, float] | None = None
    theory: str | None = None
    replay: str | None = None
    replay_ratio: float = 1.0

    def __post_init__(self) -> None:
        """Reject values that cannot give batches."""
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` is {self.validation_fraction}; it must be between 0 and 1"
            )
        if self.split not in SPLITS:
            raise ValueError(f"`split` {self.split!r} is not one of {', '.join(SPLITS)}")
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"`folds` is {self.folds}; it must be 2 or more")
        if self.folds is not None and self.validation is not None:
            raise ValueError(
                "`folds` holds out parts of `train`, so that `validation` has no use; leave out one"
            )
        for name, least in (("batch_structures", 1), ("batch_edges", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` is {value}; it must be {least} or more")
            if value is not None and value > LARGEST:
                raise ValueError(f"`{name}` is {value}; it can be {LARGEST} at most")
        if self.workers is not None and self.workers > PER_CORE * (os.cpu_count() or 1):
            raise ValueError(
                f"`workers` is {self.workers}; with {os.cpu_count()} cores it can be "
                f"{PER_CORE * (os.cpu_count() or 1)} at most"
            )
        if not self.replay_ratio > 0:
            raise ValueError(f"`replay_ratio` is {self.replay_ratio}; it must be positive")
        if self.cache_gigabytes < 0:
            raise ValueError(f"`cache_gigabytes` is {self.cache_gigabytes}; it must be 0 or more")
