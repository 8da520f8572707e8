"""Training steps on a GPU without a host that waits or launches kernels one by one.

Two CUDA graphs are recorded and then replayed. One computes the loss and its gradient, for small
batches of potentials that have kernels: its arrays have room for more than a batch. The other one
clips the gradient, takes the step of the optimiser and moves the average; it serves all batches.
Numbers that change from step to step, such as the learning rate, are in an array on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tesseral.data.graph import AtomicGraph, Batch, Labels
from tesseral.potentials.engine.gpu import capture

ROOM = 1.25  # of the largest batch so far


class Room(NamedTuple):
    """Arrays with room for atoms, edges and structures; the last structure is never a real one."""

    batch: Batch
    counts: Tensor  # (3,)  int32, as in `Lists`, with all rows of atoms
    atoms: Tensor  # ()  float64, number of atoms of the batch
    weights: Tensor  # (3,)  float64, of the loss

    def holds(self, batch: Batch) -> bool:
        """Whether there is room for a batch."""
        pairs = zip(sizes(self.batch), sizes(batch), strict=True)
        return all(here >= there for here, there in pairs)

    def set(self, batch: Batch, weights: Tensor) -> None:
        """Copy a batch to the first places, and remove the labels of the others."""
        own = self.batch
        for labels in own.labels:
            labels.fill_(torch.nan)
        own.graph.structure.fill_(len(own.graph.cell) - 1)
        for place, values in zip(arrays(own), arrays(batch), strict=True):
            place[: len(values)].copy_(values)
        self.counts[1].fill_(len(batch.graph.senders))
        self.atoms.fill_(len(batch.graph.species))
        self.weights.copy_(weights)


def sizes(batch: Batch) -> tuple[int, int, int]:
    """Numbers of atoms, edges and structures."""
    return len(batch.graph.species), len(batch.graph.senders), len(batch.graph.cell)


def arrays(batch: Batch) -> list[Tensor]:
    """Arrays that a step reads."""
    return [*batch.graph, *batch.labels]


def room_for(batch: Batch, before: Room | None) -> Room:
    """Room for a batch, at least as large as before, so that two sizes do not alternate."""
    atoms, edges, structures = (int(ROOM * number) + 1 for number in sizes(batch))
    if before is not None:
        least = zip((atoms, edges, structures), sizes(before.batch), strict=True)
        atoms, edges, structures = (max(pair) for pair in least)
    lengths = [atoms, atoms, atoms, structures, edges, edges, edges, structures, atoms, structures]
    made = [
        values.new_zeros(number, *values.shape[1:])
        for number, values in zip(lengths, arrays(batch), strict=True)
    ]
    positions = made[0]
    counts = torch.tensor([atoms, edges, atoms], dtype=torch.int32, device=positions.device)
    own = Batch(AtomicGraph(*made[:7]), Labels(*made[7:]), batch.index)
    return Room(own, counts, positions.new_zeros(()), positions.new_zeros(3))


class RecordedLoss:
    """Loss of a batch and what belongs to it, replayed for small batches."""

    def __init__(self, compute: Callable[[Room], Sequence[Tensor]]) -> None:
        """Record nothing yet.

        Args:
            compute: function that is recorded, of arrays with room for a batch.
        """
        self._compute = compute
        self._room: Room | None = None
        self._recorded: tuple[Sequence[Tensor | None], Callable[[], None]] | None = None
        self._calls, self._works = 0, True

    def __call__(self, batch: Batch, weights: Tensor) -> list[Tensor] | None:
        """Results for a batch, in memory that the next call writes; None if it is not recorded.

        Args:
            batch: the batch.
            weights: (3,) float64, weights of the loss.
        """
        self._calls += 1
        atoms, edges, _ = sizes(batch)
        if (
            self._calls <= capture.CALLS
            or not self._works
            or not 0 < atoms <= capture.LARGEST
            or not edges
        ):
            return None
        try:
            if self._room is None or self._recorded is None or not self._room.holds(batch):
                self._recorded = None  # free the old memory first
                self._room = room = room_for(batch, self._room)
                room.set(batch, weights)
                self._recorded = capture.record(lambda: self._compute(room))
        except RuntimeError as error:
            self._works, self._room, self._recorded = False, None, None
            capture.say_not_recorded("training steps of small batches", error)
            return None
        self._room.set(batch, weights)
        results, replay = self._recorded
        replay()
        return [each for each in results if each is not None]


class RecordedUpdate:
    """Change of the weights by a gradient, replayed after some steps."""

    def __init__(self, update: Callable[[Tensor], None]) -> None:
        """Record nothing yet.

        Args:
            update: function of the numbers of the step that changes arrays, always the same ones.
        """
        self._update = update
        self._numbers: Tensor | None = None
        self._replay: Callable[[], None] | None = None
        self._calls, self._works = 0, True

    def __call__(self, numbers: Tensor) -> None:
        """Take the step."""
        self._calls += 1
        if self._numbers is None or self._numbers.shape != numbers.shape:
            self._numbers, self._replay, self._calls = torch.empty_like(numbers), None, 1
        self._numbers.copy_(numbers)
        if self._replay is None and self._works and self._calls > capture.CALLS:
            self._record(self._numbers)
        if self._replay is None:
            self._update(self._numbers)
        else:
            self._replay()

    def _record(self, numbers: Tensor) -> None:
        try:
            self._replay = capture.record_update(lambda: self._update(numbers))
        except RuntimeError as error:
            self._works = False
            capture.say_not_recorded("steps of the optimiser", error)


def on_device(numbers: Sequence[float] | Sequence[Sequence[float]], device: torch.device) -> Tensor:
    """Numbers of a step as a float64 array, without waiting for the GPU."""
    found = torch.tensor(numbers, dtype=torch.float64)
    return found if device.type == "cpu" else found.pin_memory().to(device, non_blocking=True)
