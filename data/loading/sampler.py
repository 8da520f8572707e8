"""Sampler of batches: shuffled, limited in edges, independent of the number of workers.

Structures are packed into global batches of at most ``ranks × max_structures`` structures and
``ranks × max_edges`` edges, which are then distributed over the ranks. At each step two ranks thus
see the same structures as one process with both limits doubled, and all ranks take the same number
of steps. The order of a dataset depends on (seed, epoch) alone, and all epochs have the same number
of batches.

Random access to a file costs far more than sequential reading. Structures that are read together
(the segments of a `Store`) are therefore kept near each other in the order of a large set, see
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
    """Random order of structures that is fast to read.

    The segments are shuffled, and then the structures of `WINDOW` segments at a time. In a set
    with fewer segments (some 500,000 atoms), all orders are equally likely.

    Args:
        segments: (n,) segment of each structure, non-decreasing.
        seed: random seed of the shuffling.
        epoch: number of the epoch; each has its own order.

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
    """Bounds of pieces of consecutive structures within both limits.

    A piece contains ``at_least`` structures even if they exceed the limit of edges.

    Args:
        edges: number of edges of each structure, in the order in which they are packed.
        max_structures: maximum number of structures in a piece.
        max_edges: maximum number of edges in a piece.
        at_least: minimum number of structures in a piece, except the last one.

    Returns:
        (pieces + 1,) bounds: piece i is ``bounds[i]:bounds[i + 1]``.
    """
    total = np.concatenate([[0], np.cumsum(edges)])
    most = min(max_edges, int(total[-1]))  # any integer, however large, is a limit
    # End of the longest piece that starts at each structure, limited by the edges.
    reach = np.searchsorted(total, total[:-1] + most, side="right") - 1
    bounds = [0]
    while bounds[-1] < len(edges):
        start = bounds[-1]
        size = min(max(int(reach[start]) - start, at_least), max_structures)
        bounds.append(min(start + size, len(edges)))
    return np.array(bounds)


def resize(bounds: Integers, number: int, at_least: int) -> Integers:
    """Bounds with pieces divided, or dropped at the end, to give ``number`` pieces.

    Schedules and progress bars assume epochs of equal length. When the edges limit the batches, an
    epoch may be longer than the first, and its last few structures wait for another epoch. No piece
    is made smaller than ``at_least`` structures, so there may remain fewer than ``number`` pieces.
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
    """Divide a global batch among the ranks: equal numbers of structures, similar work.

    If there are fewer structures than ranks, the others receive repeats, written as
    ``-1 - structure``.
    """
    if ranks == 1:
        return [[int(structure) for structure in batch]]
    room = -(-len(batch) // ranks)
    hands: list[list[int]] = [[] for _ in range(ranks)]
    work = np.zeros(ranks)
    for structure in batch[np.argsort(-edges[batch], kind="stable")]:
        free = [rank for rank in range(ranks) if len(hands[rank]) < room]
        # The rank with the fewest structures first, so that no rank is left without any.
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
        max_structures: maximum number of structures in a batch of one rank.
        max_edges: maximum number of edges in a batch of one rank; a structure with more forms a
            batch by itself. With several ranks the limit applies to the mean over the ranks.
        shuffle: a new order every epoch instead of the order of the dataset.
        seed: random seed of the shuffling.
        rank: rank of this process.
        ranks: number of processes.
        segments: segment of each structure, see `shuffle`. Default: all in one segment.
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
        """This sampler: Lightning looks for ``set_epoch`` at ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def _pack(self) -> tuple[Integers, Integers]:
        """Order of this epoch, and the bounds of its global batches."""
        epoch = self.epoch if self.shuffle else 0
        if self._packed is None or self._packed[0] != epoch:
            order, bounds = self._natural(epoch)
            # Every epoch gets as many batches as the first one.
            if self._length is None:
                self._length = len(bounds if epoch == 0 else self._natural(0)[1]) - 1
            self._packed = (epoch, order, resize(bounds, self._length, self.ranks))
        return self._packed[1:]

    def _natural(self, epoch: int) -> tuple[Integers, Integers]:
        """Order of an epoch, and the batches that the limits give."""
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
        """Batches of this rank, without the first ``start`` ones, which are skipped once."""
        start, self.start = self.start, 0
        order, bounds = self._pack()
        for first, last in zip(bounds[start:-1], bounds[start + 1 :], strict=True):
            yield deal(order[first:last], self.edges, self.ranks)[self.rank]
