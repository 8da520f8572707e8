"""Training and validation data of a training, as a LightningDataModule."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from tesseral.data.graph import Batch, join_batches
from tesseral.data.loading.config import BATCH_EDGES, BATCH_STRUCTURES, DataConfig
from tesseral.data.loading.datasets import GraphDataset, check_elements, evaluation_loader
from tesseral.data.loading.sampler import EdgeBudgetSampler
from tesseral.data.loading.splits import Split, split_store
from tesseral.data.loading.statistics import Statistics, compute_statistics, symbols
from tesseral.data.loading.theories import (
    joined_with_replay,
    largest_level,
    theory_levels,
    theory_numbers,
)
from tesseral.data.store.read import Store, open_store

__all__ = ["DataConfig", "GraphLoader", "PotentialDataModule", "evaluation_loader"]

VALIDATION_STRUCTURES = 16


class GraphLoader(DataLoader[Batch]):
    """DataLoader that resumes within an epoch after an interruption.

    Lightning saves `state_dict` in its checkpoints and restores it.
    """

    _epoch = 0
    _done = 0
    _resume: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        sampler = self.batch_sampler
        assert isinstance(sampler, EdgeBudgetSampler)
        self._epoch, self._done = sampler.epoch, 0
        if self._resume is not None:
            epoch, done = self._resume
            if epoch == sampler.epoch and done < len(sampler):
                sampler.start = self._done = done
            self._resume = None
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch, and the number of its batches that were yielded."""
        return {"epoch": self._epoch, "batches": self._done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Skip the batches that were already yielded, if the next epoch is that of the state."""
        self._resume = (state["epoch"], state["batches"])


class PotentialDataModule(lightning.LightningDataModule):
    """Loaders of `Batch` for training and validation.

    With several processes, give the Trainer ``use_distributed_sampler=False``: the samplers here
    distribute the batches over the ranks themselves.

    Args:
        config: files, split and batches.
        cutoff: cutoff (Å).
        known: atomic numbers that the model supports in addition to those of the training data.
        split: rows of the training file to use, instead of what ``config`` says. Without
            validation rows there are no validation batches.

    Attributes:
        elements: atomic numbers, in the order of the species index.
        theories: levels of theory, that of the model file first; empty if they are not
            distinguished.
    """

    def __init__(
        self,
        config: DataConfig,
        cutoff: float,
        known: tuple[int, ...] = (),
        split: Split | None = None,
    ) -> None:
        super().__init__()
        self.split = split
        self.config, self.cutoff, self.known = config, cutoff, known
        self.elements: tuple[int, ...] = ()
        self.theories: tuple[str, ...] = ()
        self.main_level = 0  # level of theory of the statistics
        self._statistics: Statistics | None = None
        self.split_reason = "in a separate file"

    def setup(self, stage: str | None = None) -> None:
        """Open the files, split them, and compute the statistics of the training part.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: a file cannot be read, split or trained on.
        """
        if self._statistics is not None:
            return
        config = self.config
        train_store = open_store(config.train)
        if self.split is not None:
            validation_store = train_store
            train_rows, validation_rows, self.split_reason = self.split
        elif config.validation is None:
            validation_store = train_store
            train_rows, validation_rows, self.split_reason = split_store(
                train_store,
                method=config.split,
                fraction=config.validation_fraction,
                seed=config.seed,
            )
        else:
            validation_store = open_store(config.validation)
            check_elements(validation_store, (*train_store.elements, *self.known))
            train_rows = np.arange(len(train_store))
            validation_rows = np.arange(len(validation_store))
        if config.replay is not None:
            before = len(train_store)
            scratch = tempfile.mkdtemp(prefix="tesseral-replay-")
            weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
            train_store = joined_with_replay(
                train_store,
                open_store(config.replay),
                config.replay_ratio,
                config.seed,
                Path(scratch) / f"{train_store.path.stem}-with-replay.h5",
            )
            train_rows = np.append(train_rows, np.arange(before, len(train_store)))
        main_rows = target_rows = train_rows
        if config.theory is not None:
            self.theories = theory_levels(train_store, train_rows, config.theory)
            levels = theory_numbers(train_store, self.theories)[train_rows]
            # Energies of isolated atoms are of the level of the model file.
            self.main_level = 0 if config.isolated_energies else largest_level(levels)
            main_rows, target_rows = (train_rows[levels == k] for k in (self.main_level, 0))
            validation_rows = self._of_target(validation_store, validation_rows)
        statistics = compute_statistics(
            train_store, main_rows, self.cutoff, isolated_energies=config.isolated_energies
        )
        trained = statistics.elements
        if self.theories:  # other levels may have more elements; all atoms are read again
            present = np.nonzero(train_store.compositions()[train_rows].sum(axis=0))[0]
            trained = tuple(train_store.elements[column] for column in present)
        self.elements = tuple(sorted({*trained, *self.known}))
        cache = config.cache_gigabytes * 1e9 / max(1, config.workers or 0)
        share = len(train_rows) / (len(train_rows) + len(validation_rows))
        self.train_dataset = GraphDataset(
            train_store,
            train_rows,
            self.elements,
            self.cutoff,
            cache_bytes=share * cache,
            theories=self.theories,
        )
        self.validation_dataset = GraphDataset(
            validation_store,
            validation_rows,
            self.elements,
            self.cutoff,
            cache_bytes=(1 - share) * cache,
            mask_repeats=True,
        )
        self.target_rows = target_rows  # of the training part, with the level of the model file
        self.train_edges = self.train_dataset.edge_counts()
        self._validation_edges = self.validation_dataset.edge_counts()
        self._statistics = statistics

    @property
    def batch_structures(self) -> int:
        """Maximum number of structures in a training batch."""
        return self.config.batch_structures or BATCH_STRUCTURES

    @property
    def batch_edges(self) -> int:
        """Maximum number of edges in a training batch."""
        return self.config.batch_edges or BATCH_EDGES

    def _of_target(self, store: Store, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows with the level of theory of the model file."""
        kept: NDArray[np.int64] = rows[theory_numbers(store, self.theories)[rows] == 0]
        if len(kept) == 0:
            raise ValueError(
                f"no structure of {store.path} to validate on has the theory "
                f"{self.theories[0]!r}; give some with data.validation"
            )
        return kept

    @property
    def statistics(self) -> Statistics:
        """Statistics of the training part; available after `setup`."""
        if self._statistics is None:
            raise RuntimeError("the data are not set up yet; call setup() first")
        return self._statistics

    def train_dataloader(self) -> GraphLoader:
        """Shuffled batches; their order depends on the seed and the epoch only."""
        data, limit = self.train_dataset, self.batch_structures
        segments = data.store.segments[data.rows]
        sampler = self._sampler(self.train_edges, limit, shuffle=True, segments=segments)
        return self._loader(data, sampler)

    def val_dataloader(self) -> GraphLoader:
        """Batches in the order of the dataset.

        With several processes, a rank without a structure in a step receives one without labels.
        """
        limit = max(self.batch_structures, VALIDATION_STRUCTURES)
        return self._loader(
            self.validation_dataset, self._sampler(self._validation_edges, limit, shuffle=False)
        )

    def summary(self) -> dict[str, Any]:
        """Description of the data for the model card."""
        statistics = self.statistics

        def part(dataset: GraphDataset) -> dict[str, Any]:
            store: Store = dataset.store
            return {
                "file": store.path.name,
                "content_hash": store.content_hash,
                "structures": len(dataset),
                "atoms": int(store.n_atoms[dataset.rows].sum()),
                **store.attributes,
            }

        return {
            "train": part(self.train_dataset),
            "validation": part(self.validation_dataset),
            "split": self._split_name,
            "seed": self.config.seed,
            "elements": list(symbols(self.elements)),
            **({"theories": list(self.theories)} if self.theories else {}),
            **({"replay": Path(self.config.replay).name} if self.config.replay else {}),
            "force_rms": statistics.force_rms,
        }

    @property
    def _split_name(self) -> str:
        """How training and validation structures were chosen, for the model card."""
        if self.split is not None:
            return self.split.reason
        return "file" if self.config.validation is not None else self.config.split

    def _sampler(self, edges: Any, structures: int, **options: Any) -> EdgeBudgetSampler:
        trainer = self.trainer
        return EdgeBudgetSampler(
            edges,
            max_structures=structures,
            max_edges=self.batch_edges,
            seed=self.config.seed,
            rank=0 if trainer is None else trainer.global_rank,
            ranks=1 if trainer is None else trainer.world_size,
            **options,
        )

    def _loader(self, dataset: GraphDataset, sampler: EdgeBudgetSampler) -> GraphLoader:
        workers, trainer = self.config.workers or 0, self.trainer
        gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
        return GraphLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=join_batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=gpu,  # so that copies to the GPU are not waited for
        )
