"""Training batches as an endless stream that can start at any step."""

from __future__ import annotations

from collections.abc import Iterator

from tesseral.data.graph import Batch
from tesseral.data.loading.datamodule import GraphLoader, PotentialDataModule
from tesseral.data.loading.sampler import EdgeBudgetSampler


class BatchStream:
    """Endless sequence of the epochs of a loader.

    The position in the data depends on the step alone, since all epochs have the same number of
    batches and their order depends on (seed, epoch). A resumed training therefore continues at the
    right batch, also within an epoch and whatever the state of the workers was.
    """

    def __init__(self, loader: GraphLoader, first_step: int) -> None:
        """Start the stream at a step (0 is the beginning)."""
        self.loader = loader
        self.first_step = first_step

    def __iter__(self) -> Iterator[Batch]:
        sampler = self.loader.batch_sampler
        assert isinstance(sampler, EdgeBudgetSampler)
        epoch, done = divmod(self.first_step, len(sampler))
        while True:
            sampler.set_epoch(epoch)
            if done > 0:
                self.loader.load_state_dict({"epoch": epoch, "batches": done})
            yield from self.loader
            epoch, done = epoch + 1, 0


class FitData(PotentialDataModule):
    """The data module with training batches as a stream that starts at the trainer's step."""

    def setup(self, stage: str | None = None) -> None:
        """Set up; repeats that pad the batch of a rank must not count in the loss."""
        super().setup(stage)
        self.train_dataset.mask_repeats = True

    def train_dataloader(self) -> BatchStream:  # type: ignore[override]
        """Endless training batches."""
        step = 0 if self.trainer is None else self.trainer.global_step
        return BatchStream(super().train_dataloader(), step)

    def steps_per_epoch(self, ranks: int) -> int:
        """Number of batches in an epoch of one process, for a given number of processes."""
        sampler = EdgeBudgetSampler(
            self.train_edges,
            max_structures=self.batch_structures,
            max_edges=self.batch_edges,
            seed=self.config.seed,
            ranks=ranks,
        )
        return len(sampler)
