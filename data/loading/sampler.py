"""Which structures make a batch: shuffled, bounded in edges, the same for any number of workers.

Structures are packed into global batches of at most ``ranks × max_structures`` structures and
``ranks × max_edges`` edges, which are then dealt to the ranks. Two ranks thus see at each step
what one process with both limits doubled would see, and all ranks make the same number of steps.
The order of a dataset depends on (seed, epoch) alone, and all epochs have the same number of
batches.

Random access to a file costs far more than reading on. Structures that are read together (the
segments of a `Store`) are therefore kept near each other in the order of a large set, see
`shuffle`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler

Integers = NDArray[np.int64]


WINDOW = 256  # segments that are shuffled together; a store keeps about twice as many


def shuffle(segments: Integers, seed: int, epoch: int) -> Integers:
    """A random order of structures that is fast to read.

    The segments are shuffled, and then the structures of `WINDOW` segments at a time. Of a set
    with fewer segments (some 500,000 atoms), any order is as likely as any other.

    Args:
        segments: (n,) segment of each structure, not falling.
        seed: of the shuffling.
        epoch: each has its own order.

    Returns:
        The numbers 0 … n - 1, shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    starts = np.flatnonzero(np.diff(segments, prepend=-1))
    if len(starts) <= WINDOW:
        everything: Integers = rng.permutation(len(segments))
        return everything
    lengths = np.diff(starts, append=len(segments))
    chosen = rng.permutation(len(starts))
    ends = np.cumsum(lengths[chosen])
    # Rows of the chosen segments one after the other: a range, moved segment by segment.
    moved = starts[chosen] - (ends - lengths[chosen])
    order: Integers = np.arange(len(segments)) + np.repeat(moved, lengths[chosen])
    first = 0
    for last in [*ends[WINDOW - 1 : -1 : WINDOW], len(order)]:
        rng.shuffle(order[first:last])
        first = last
    return order


def pack(edges: Integers, *, max_structures: int, max_edges: int, at_least: int = 1) -> Integers:
    """Where consecutive structures are cut into pieces that keep within both limits.

    A piece holds ``at_least`` structures even where they pass the limit of edges.

    Args:
        edges: number of edges of each structure, in the order in which they are packed.
        max_structures: in a piece.
        max_edges: in a piece.
        at_least: structures in a piece, but for the last one.

    Returns:
        (pieces + 1,) bounds: piece i is ``bounds[i]:bounds[i + 1]``.
    """
    total = np.concatenate([[0], np.cumsum(edges)])
    # As far as the edges allow from each structure on.
    reach = np.searchsorted(total, total[:-1] + max_edges, side="right") - 1
    bounds = [0]
    while bounds[-1] < len(edges):
        start = bounds[-1]
        size = min(max(int(reach[start]) - start, at_least), max_structures)
        bounds.append(min(start + size, len(edges)))
    return np.array(bounds)


def resize(bounds: Integers, number: int, at_least: int) -> Integers:
    """The bounds, divided or left out at the end until there are ``number`` pieces.

    Schedules and progress bars count on epochs of equal length. When the edges bound the batches,
    an epoch may come out longer than the first, and its last few structures wait for another
    epoch. No piece is made smaller than ``at_least`` structures, so too few may stay too few.
    """
    bounds = bounds[: number + 1]
    pieces = [
        (-int(size), int(start)) for start, size in zip(bounds, np.diff(bounds), strict=False)
    ]
    heapq.heapify(pieces)
    while len(pieces) < number and -pieces[0][0] >= 2 * at_least:
        size, start = -pieces[0][0], pieces[0][1]
        heapq.heapreplace(pieces, (-(size // 2), start))
        heapq.heappush(pieces, (-(size - size // 2), start + size // 2))
    return np.array([*sorted(start for _, start in pieces), bounds[-1]])


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
        segments: which structures are read together, see `shuffle`; all of them if not given.
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
        segments: ArrayLike | None = None,
    ) -> None:
        self.edges = np.asarray(edges, dtype=np.int64)
        self.segments = np.zeros_like(self.edges) if segments is None else np.asarray(segments)
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is not one of {ranks} ranks")
        self.max_structures, self.max_edges = max_structures, max_edges
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 0
        self.start = 0
        self._packed: tuple[int, Integers, Integers] | None = None
        self._length: int | None = None

    @property
    def sampler(self) -> EdgeBudgetSampler:
        """Itself: Lightning looks for ``set_epoch`` at ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def _pack(self) -> tuple[Integers, Integers]:
        """Order of this epoch, and the bounds of its batches before they are dealt to the ranks."""
        epoch = self.epoch if self.shuffle else 0
        if self._packed is None or self._packed[0] != epoch:
            order, bounds = self._natural(epoch)
            # Every epoch gets as many batches as the first has by itself.
            if self._length is None:
                self._length = len(bounds if epoch == 0 else self._natural(0)[1]) - 1
            self._packed = (epoch, order, resize(bounds, self._length, self.ranks))
        return self._packed[1:]

    def _natural(self, epoch: int) -> tuple[Integers, Integers]:
        """Order of an epoch, and as many batches as the limit of edges makes them."""
        order = np.arange(len(self.edges))
        if self.shuffle:
            order = shuffle(self.segments, self.seed, epoch)
        bounds = pack(
            self.edges[order],
            max_structures=self.max_structures * self.ranks,
            max_edges=self.max_edges * self.ranks,
            at_least=self.ranks,
        )
        return order, bounds

    def __len__(self) -> int:
        return len(self._pack()[1]) - 1

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches, after the first ``start`` ones, which are skipped once."""
        start, self.start = self.start, 0
        order, bounds = self._pack()
        for first, last in zip(bounds[start:-1], bounds[start + 1 :], strict=True):
            yield deal(order[first:last], self.edges, self.ranks)[self.rank]
