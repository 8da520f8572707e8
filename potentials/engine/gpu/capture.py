"""Small systems: all launches of a call recorded once as a CUDA graph, and replayed as one.

The arrays of the graph have room for more atoms and edges than there are. Systems that need more
room are recorded anew.

The kernels read the numbers of atoms and edges from the GPU, so that nothing is computed for the
rest. Training is recorded by ``training/recorded.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tesseral.potentials.engine.gpu.geometry import Lists
from tesseral.potentials.engine.results import AtomicResults

LARGEST = 4096  # atoms; for more, the kernels take longer than their launches
CALLS = 20  # before anything is recorded, which takes as long as some hundred calls

Evaluate = Callable[[Tensor, Tensor, Lists], AtomicResults]
Results = Sequence[Tensor | None]
Recorded = tuple[Results, Callable[[], None]]
Record = Callable[[Callable[[], Results]], Recorded]


class _Room(NamedTuple):
    """Arrays with room for atoms and edges."""

    species: Tensor  # (N,)
    vectors: Tensor  # (E, 3)
    lists: Lists

    def holds(self, atoms: int, edges: int) -> bool:
        """Whether there is room."""
        return atoms <= len(self.species) and edges <= len(self.vectors)

    def set(self, species: Tensor, vectors: Tensor) -> None:
        """Copy species and vectors to the first places."""
        self.species[: len(species)].copy_(species)
        self.vectors[: len(vectors)].copy_(vectors)

    def set_lists(self, lists: Lists) -> None:
        """Copy lists to the first places."""
        for place, values in zip(self.lists, lists, strict=True):
            place[: len(values)].copy_(values)


def _room(atoms: int, edges: int, before: _Room | None, like: Tensor) -> _Room:
    """Zeros, with room for at least some numbers of atoms and edges, and for as many as before."""
    if before is not None:  # do not change between two sizes again and again
        atoms, edges = max(atoms, len(before.species)), max(edges, len(before.vectors))

    def indices(number: int) -> Tensor:
        return torch.zeros(number, dtype=torch.int32, device=like.device)

    species = torch.zeros(atoms, dtype=torch.int64, device=like.device)
    rows = 3, edges, edges, atoms + 1, atoms + 1, edges
    lists = Lists(*(indices(number) for number in rows))
    return _Room(species, like.new_zeros(edges, 3), lists)


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
        self._recorded: Recorded | None = None
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
            self._works, self._room, self._recorded = False, None, None
            say_not_recorded("calls for small structures", error)
            return self._evaluate(species, vectors, lists)

    def _replayed(self, species: Tensor, vectors: Tensor, lists: Lists) -> AtomicResults:
        atoms, edges = len(species), len(vectors)
        if self._room is None or not self._room.holds(atoms, edges):
            more = [1 << (number - 1).bit_length() for number in (atoms, edges)]
            self._recorded = self._listed = None  # free the old memory first
            self._room = room = _room(more[0], more[1], self._room, vectors)
            self._recorded = self._record(lambda: self._evaluate(*room))
        assert self._recorded is not None
        self._room.set(species, vectors)
        if self._listed is not lists:
            self._room.set_lists(lists)
            self._listed = lists
        results, replay = self._recorded
        replay()
        found = (None if each is None else each[:atoms].clone() for each in results)
        return AtomicResults(*found)  # type: ignore[arg-type]


def say_not_recorded(calls: str, error: RuntimeError) -> None:
    """Warn that calls are not recorded."""
    warnings.warn(
        f"{calls} are not recorded as a CUDA graph, and take a few times as long: "
        f"{str(error).splitlines()[0]}",
        stacklevel=3,
    )


def record_update(update: Callable[[], None]) -> Callable[[], None]:
    """Record the launches of a function that changes arrays, and has been called before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        update()
    return graph.replay


def record(function: Callable[[], Results]) -> Recorded:
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
