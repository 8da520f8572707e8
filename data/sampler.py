"""Which structures make a batch: shuffled, bounded in edges, the same for any number of workers.

Structures are packed into global batches of at most ``ranks × max_structures`` structures and
``ranks × max_edges`` edges, which are then dealt to the ranks. Two ranks thus see at each step
what one process with both limits doubled would see, and all ranks make the same number of steps.
The order depends on (seed, epoch) alone, and all epochs have the same number of batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler

Integers = NDArray[np.int64]


def pack(
    order: Integers, edges: Integers, *, max_structures: int, max_edges: int, at_least: int = 1
) -> list[Integers]:
    """Consecutive pieces of an order, each within both limits.

    A piece holds ``at_least`` structures even where they pass the limit of edges.

    Args:
        order: structures, in the order in which they are packed.
        edges: number of edges of every structure.
        max_structures: in a piece.
        max_edges: in a piece.
        at_least: structures in a piece, but for the last one.
    """
    pieces = []
    start, total = 0, 0
    for place, structure in enumerate(order):
        number = place - start
        full = number == max_structures or total + edges[structure] > max_edges
        if full and number >= at_least:
            pieces.append(order[start:place])
            start, total = place, 0
        total += int(edges[structure])
    if start < len(order):
        pieces.append(order[start:])
    return pieces


def resize(pieces: list[Integers], number: int, at_least: int) -> list[Integers]:
    """The pieces, divided or left out at the end until there are ``number`` of them.

    Schedules and progress bars count on epochs of equal length. When the edges bound the batches,
    an epoch may come out longer than the first, and its last few structures wait for another
    epoch. No piece is made smaller than ``at_least`` structures, so too few may stay too few.
    """
    pieces = pieces[:number]
    while len(pieces) < number:
        largest = max(range(len(pieces)), key=lambda place: len(pieces[place]))
        piece = pieces[largest]
        if len(piece) < 2 * at_least:
            break
        middle = len(piece) // 2
        pieces[largest : largest + 1] = [piece[:middle], piece[middle:]]
    return pieces


def deal(batch: Integers, edges: Integers, ranks: int) -> list[list[int]]:
    """One global batch divided among the ranks: equal numbers of structures, similar work.

    Where there are fewer structures than ranks, the others are given repeats, written as
    ``-1 - structure``.
    """
    if ranks == 1:
        return [[int(structure) for structure in batch]]
    room = -(-len(batch) // ranks)
    hands: list[list[int]] = [[] for _ in range(ranks)]
    work = np.zeros(ranks)
    for structure in batch[np.argsort(-edges[batch], kind="stable")]:
        free = [rank for rank in range(ranks) if len(hands[rank]) < room]
        # The emptiest hand first, so that no rank is left with nothing.
        rank = min(free, key=lambda r: (len(hands[r]) > 0, work[r], r))
        hands[rank].append(int(structure))
        work[rank] += edges[structure]
    for rank, hand in enumerate(hands):
        if not hand:
            hand.append(-1 - int(batch[rank % len(batch)]))
    return hands


class EdgeBudgetSampler(Sampler[list[int]]):
    """Batches of structure numbers 0 … n - 1 for one rank.

    A negative number ``-1 - i`` is a repeat of structure i, which another rank has in the same
    step; see `deal`.

    Args:
        edges: number of edges of each structure.
        max_structures: structures in a batch of one rank.
        max_edges: edges in a batch of one rank; a structure with more makes a batch alone. With
            several ranks the mean over the ranks keeps the limit.
        shuffle: a new order every epoch, or always the order of the dataset.
        seed: of the shuffling.
        rank: of this process.
        ranks: number of processes.
    """

    def __init__(
        self,
        edges: ArrayLike,
        *,
        max_structures: int,
        max_edges: int,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.edges = np.asarray(edges, dtype=np.int64)
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is not one of {ranks} ranks")
        self.max_structures, self.max_edges = max_structures, max_edges
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 0
        self.start = 0
        self._packed: tuple[int, list[Integers]] | None = None
        self._length: int | None = None

    @property
    def sampler(self) -> EdgeBudgetSampler:
        """Itself: Lightning looks for ``set_epoch`` at ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def global_batches(self) -> list[Integers]:
        """The batches of this epoch before they are dealt to the ranks."""
        epoch = self.epoch if self.shuffle else 0
        if self._length is None:
            self._length = len(self._pack(0))
        if self._packed is None or self._packed[0] != epoch:
            self._packed = (epoch, resize(self._pack(epoch), self._length, self.ranks))
        return self._packed[1]

    def _pack(self, epoch: int) -> list[Integers]:
        """The batches of an epoch, as many as the limit of edges makes them."""
        order = np.arange(len(self.edges))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        return pack(
            order,
            self.edges,
            max_structures=self.max_structures * self.ranks,
            max_edges=self.max_edges * self.ranks,
            at_least=self.ranks,
        )

    def __len__(self) -> int:
        return len(self.global_batches())

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches, after the first ``start`` ones, which are skipped once."""
        start, self.start = self.start, 0
        for batch in self.global_batches()[start:]:
            yield deal(batch, self.edges, self.ranks)[self.rank]
