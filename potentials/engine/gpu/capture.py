"""Small systems: all launches of a call recorded once as a CUDA graph, and replayed as one.

The arrays of the graph have room for more atoms and edges than there are. The kernels read the
numbers of both from the GPU, so that nothing is computed for the rest. Systems that need more room
are recorded anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tesseral.potentials.engine.gpu.geometry import Lists
from tesseral.potentials.engine.results import AtomicResults

LARGEST = 4096  # atoms; for more, the kernels take longer than their launches
CALLS = 2  # with the same weights before anything is recorded

Evaluate = Callable[[Tensor, Tensor, Lists], AtomicResults]
Recorded = tuple[AtomicResults, Callable[[], None]]
Record = Callable[[Callable[[], AtomicResults]], Recorded]


class _Room(NamedTuple):
    """Arrays with room for atoms and edges, and what was recorded with them."""

    species: Tensor  # (N,)
    vectors: Tensor  # (E, 3)
    lists: Lists
    results: AtomicResults
    replay: Callable[[], None]

    def holds(self, atoms: int, edges: int) -> bool:
        """Whether there is room."""
        return atoms <= len(self.species) and edges <= len(self.vectors)


class Captured:
    """A potential whose calls are replayed for small systems."""

    def __init__(self, evaluate: Evaluate, record: Record) -> None:
        """Record nothing yet.

        Args:
            evaluate: the function of species, vectors and lists that is recorded.
            record: runs a function without arguments, and returns its results and how to compute
                them again in the same memory; see ``record``.
        """
        self._evaluate, self._record = evaluate, record
        self._room: _Room | None = None
        self._listed: Lists | None = None  # those in the room
        self._calls, self._works = 0, True

    def __call__(self, species: Tensor, vectors: Tensor, lists: Lists) -> AtomicResults:
        """Results for species (N,), vectors (E, 3) Å, and the lists of the edges."""
        self._calls += 1
        usual = self._calls <= CALLS or not self._works
        if usual or not 0 < len(species) <= LARGEST or not len(vectors):
            return self._evaluate(species, vectors, lists)
        try:
            return self._replayed(species, vectors, lists)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._works, self._room = False, None
            warnings.warn(
                "calls for small structures are not recorded as a CUDA graph, and take a few "
                f"times as long: {str(error).splitlines()[0]}",
                stacklevel=2,
            )
            return self._evaluate(species, vectors, lists)

    def _replayed(self, species: Tensor, vectors: Tensor, lists: Lists) -> AtomicResults:
        atoms, edges = len(species), len(vectors)
        if self._room is None or not self._room.holds(atoms, edges):
            self._make_room(atoms, edges, vectors)
        room = self._room
        assert room is not None
        room.species[:atoms].copy_(species)
        room.vectors[:edges].copy_(vectors)
        if self._listed is not lists:
            for place, values in zip(room.lists, lists, strict=True):
                place[: len(values)].copy_(values)
            self._listed = lists
        room.replay()
        found = (None if each is None else each[:atoms].clone() for each in room.results)
        return AtomicResults(*found)  # type: ignore[arg-type]

    def _make_room(self, atoms: int, edges: int, like: Tensor) -> None:
        """Make arrays of twice the size at most, and record the call with them."""
        before = self._room
        if before is not None:  # do not change between two sizes again and again
            atoms, edges = max(atoms, len(before.species)), max(edges, len(before.vectors))
        self._room = self._listed = None  # free the old memory first
        atoms, edges = (1 << (number - 1).bit_length() for number in (atoms, edges))

        def indices(number: int) -> Tensor:
            return torch.zeros(number, dtype=torch.int32, device=like.device)

        species = torch.zeros(atoms, dtype=torch.int64, device=like.device)
        vectors = like.new_zeros(edges, 3)
        rows = 2, edges, edges, atoms + 1, atoms + 1, edges
        lists = Lists(*(indices(number) for number in rows))
        recorded = self._record(lambda: self._evaluate(species, vectors, lists))
        self._room = _Room(species, vectors, lists, *recorded)


def record(function: Callable[[], AtomicResults]) -> Recorded:
    """Record the launches of a function on the current GPU."""
    waiting: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    current = torch.cuda.current_stream()
    waiting.wait_stream(current)
    with torch.cuda.stream(waiting):  # loads the kernels, which must not happen while recording
        function()
    current.wait_stream(waiting)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = function()
    return results, graph.replay
