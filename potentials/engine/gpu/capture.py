"""Small systems: all launches of a call recorded once as a CUDA graph, and replayed as one.

The arrays of the graph have room for more atoms and edges than there are. Systems that need more
room are recorded anew.

In inference the kernels read the numbers of atoms and edges from the GPU, so that nothing is
computed for the rest. In training, where PyTorch's operations work on whole arrays too, the rest of
the atoms are atoms without neighbours, on which no loss depends: their gradients are zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from tesseral.potentials.engine.gpu.geometry import Kernels, Lists
from tesseral.potentials.engine.gpu.training import AnyStep, Step
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.message_passing import MessagePassing

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
            _say("calls for small structures", error)
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


def _say(calls: str, error: RuntimeError) -> None:
    """Warn that calls are not recorded."""
    warnings.warn(
        f"{calls} are not recorded as a CUDA graph, and take a few times as long: "
        f"{str(error).splitlines()[0]}",
        stacklevel=3,
    )


class CapturedSteps:
    """Training steps of a potential, replayed for small batches."""

    def __init__(self, kernels: Kernels, record: Record) -> None:
        """Record nothing yet; arguments as for `Step` and `Captured`.

        There is one step at a time in the room: if the gradients of the last one have not been
        computed yet, and somebody still holds its results, the next one is not recorded.
        """
        self._kernels, self._record = kernels, record
        self._state: list[int] = []
        self._room: _Room | None = None
        self._recorded: _RecordedStep | None = None
        self._calls, self._works = 0, True

    def __call__(
        self, potential: MessagePassing, species: Tensor, vectors: Tensor, lists: Lists
    ) -> AnyStep:
        """A step for a batch, always with the same potential; arguments as for `Step`."""
        self._calls += 1
        plain = Step(potential, self._kernels, species, vectors, lists)
        usual = self._calls <= CALLS or not self._works
        if usual or not 0 < len(species) <= LARGEST or not len(vectors):
            return plain
        tensors = [*potential.parameters(), *potential.buffers()]
        state = [tensor.data_ptr() for tensor in tensors]
        if state != self._state:  # the weights are not where they were
            self._state, self._recorded = state, None
        if self._recorded is not None and self._recorded.busy():
            return plain
        try:
            return self._prepared(potential, species, vectors, lists)
        except RuntimeError as error:
            self._works, self._room, self._recorded = False, None, None
            _say("training steps of small batches", error)
            return plain

    def _prepared(
        self, potential: MessagePassing, species: Tensor, vectors: Tensor, lists: Lists
    ) -> _Taken:
        atoms, edges = len(species), len(vectors)
        if self._recorded is None or self._room is None or not self._room.holds(atoms, edges):
            self._recorded = None  # free the old memory first
            self._room = _room(atoms + atoms // 4, edges + edges // 4, self._room, vectors)
            step = Step(potential, self._kernels, *self._room)
            self._recorded = _RecordedStep(step, self._record)
        room = self._room
        room.species.zero_()
        room.set(species, vectors)
        room.lists.first.fill_(edges)  # the other atoms have no edges
        room.lists.sent.fill_(edges)
        room.set_lists(lists)
        room.lists.counts[::2] = len(room.species)
        return self._recorded.taken(atoms)


class _RecordedStep:
    """A step in a room, whose passes are replayed."""

    def __init__(self, step: Step, record: Record) -> None:
        self._results, self._forward = record(step.forward)
        kept = [each for each in self._results if each is not None]
        self._by_results = by_results = [torch.zeros_like(each) for each in kept]
        self._shapes: list[torch.Size] = []

        def backward() -> Results:  # all gradients in one array, since it is copied
            gradients = step.backward(by_results)
            self._shapes = [each.shape for each in gradients]
            return [torch.cat([each.flatten() for each in gradients])]

        self._gradients, self._backward = record(backward)
        self._taken: ReferenceType[_Taken] | None = None

    def busy(self) -> bool:
        """Whether results were given away whose gradients are still wanted."""
        taken = None if self._taken is None else self._taken()
        return taken is not None and not taken.done

    def is_last(self, taken: _Taken) -> bool:
        """Whether the arrays are still those of a batch."""
        return self._taken is not None and self._taken() is taken

    def taken(self, atoms: int) -> _Taken:
        """The step for a batch that was copied to the room."""
        taken = _Taken(self, atoms)
        self._taken = ref(taken)
        return taken

    def forward(self, atoms: int) -> AtomicResults:
        self._forward()
        energies, forces, virials = (
            each[:atoms].clone() for each in self._results if each is not None
        )
        return AtomicResults(energies, forces, virials)

    def backward(self, atoms: int, by_results: Sequence[Tensor]) -> list[Tensor]:
        for place, values in zip(self._by_results, by_results, strict=True):
            place.zero_()
            place[:atoms].copy_(values)
        self._backward()
        (every,) = self._gradients
        assert every is not None
        parts = torch.split(every.clone(), [shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]


class _Taken:
    """A recorded step for one batch."""

    def __init__(self, step: _RecordedStep, atoms: int) -> None:
        self._step, self._atoms, self.done = step, atoms, False

    def forward(self) -> AtomicResults:
        return self._step.forward(self._atoms)

    def backward(self, by_results: Sequence[Tensor]) -> Sequence[Tensor]:
        if not self._step.is_last(self):
            raise RuntimeError(
                "gradients of a training step are wanted a second time, after the next step has "
                "begun; its arrays are gone: compute the loss again"
            )
        self.done = True
        return self._step.backward(self._atoms, by_results)


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
