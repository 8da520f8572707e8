"""The launches of a call as a plan, which a program without Python can repeat.

The engine itself is run three times with other numbers of atoms and edges, on a recorder in the
place of the kernels: no kernel runs. So the order of the launches and their arguments stand only in
the engine, and the sizes of arrays follow from the differences.

The text of a plan, whose numbers are separated by blanks:

    tesseral_gpu 1
    block <threads>
    slots <number>                       memory, whose beginning is aligned to 256 bytes
    <bytes> <bytes per atom> <bytes per edge>
    …
    steps <number>
    launch <kernel> <atoms or edges> <lanes for each> <arguments> <each argument>
    <spread, clear or gather> <slot> <bytes of a row>
    …

An argument is ``p SLOT OFFSET``, ``n`` (null), ``i INTEGER`` or ``d DOUBLE``. The first slots are
`NAMES`; the first of them has the weights.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from tesseral.potentials.engine.gpu import facet
from tesseral.potentials.engine.gpu.facet import FacetKernels
from tesseral.potentials.engine.gpu.geometry import Lists
from tesseral.potentials.engine.gpu.host import Argument
from tesseral.potentials.engine.gpu.source import source
from tesseral.potentials.message_passing import MessagePassing

VERSION = 1
ALIGNED = 256  # bytes
RESULTS = ("energies", "forces", "virials", "uncertainties")
NAMES = ("weights", "species", "vectors", *Lists._fields, *RESULTS)
TRIALS = ((5, 7), (6, 7), (5, 8))  # numbers of atoms and edges


class Plan(NamedTuple):
    """Launches of a potential."""

    source: str  # translation unit of the kernels
    text: str
    weights: bytes


class _Place(NamedTuple):
    """An argument in an array."""

    array: int  # address, which no other array of the recordings has
    offset: int  # bytes


class _Call(NamedTuple):
    """A launch, or an exchange with its row in bytes as the only other argument."""

    name: str
    items: int
    lanes: int
    arguments: tuple[_Place | int | float | None, ...]


class _Size(NamedTuple):
    """Bytes of an array."""

    fixed: int
    per_atom: int = 0
    per_edge: int = 0


class _Recorder:
    """Calls and arrays of one run of the engine."""

    def __init__(self) -> None:
        self.steps: list[_Call] = []
        self.arrays: dict[int, Tensor] = {}  # kept, so that addresses are not used again

    def __call__(self, name: str, items: int, lanes: int, *arguments: Argument) -> None:
        places = (self._place(each) if isinstance(each, Tensor) else each for each in arguments)
        self.steps.append(_Call(name, items, lanes, tuple(places)))

    def exchange(self, kind: str, rows: Tensor) -> None:
        self.steps.append(_Call(kind, 0, 0, (self._place(rows), rows[0].nbytes)))

    def bytes(self, array: int) -> int:
        """Size of an array."""
        return self.arrays[array].untyped_storage().nbytes()

    def _place(self, tensor: Tensor) -> _Place:
        address = tensor.untyped_storage().data_ptr()
        self.arrays[address] = tensor
        return _Place(address, tensor.data_ptr() - address)


class _Step(NamedTuple):
    """The same call in the three recordings."""

    first: _Call
    more_atoms: _Call
    more_edges: _Call

    @property
    def places(self) -> list[tuple[_Place, ...]]:
        """Arguments in arrays, each in the three recordings."""
        every = zip(*(call.arguments for call in self), strict=True)
        return [each for each in every if isinstance(each[0], _Place)]

    def line(self, slots: dict[int, int], offsets: dict[int, int]) -> str:
        """Line of the plan with the slots of arrays and the offsets of weights."""
        name, items, lanes, arguments = self.first
        if not lanes:
            place, row = arguments
            assert isinstance(place, _Place)
            return f"{name} {slots[place.array]} {row}"
        by = "atoms" if self.more_atoms.items > items else "edges"
        words = []
        for value, *others in zip(*(call.arguments for call in self), strict=True):
            if isinstance(value, _Place):
                offset = offsets.get(value.array, 0) + value.offset
                words.append(f"p {slots[value.array]} {offset}")
                continue
            assert all(other == value for other in others), f"an argument of {name} varies"
            kind = "n" if value is None else "d" if isinstance(value, float) else "i"
            words.append("n" if value is None else f"{kind} {value!r}")
        return f"launch {name} {by} {lanes} {len(words)} {' '.join(words)}"


def supports(potential: MessagePassing) -> bool:
    """Whether there is a plan for a potential."""
    return facet.supports(potential)


@torch.no_grad()
def make_plan(potential: MessagePassing) -> Plan:
    """The launches of a potential on the CPU, for which ``supports`` is true."""
    sizes, recorder = facet.sizes_of(potential), _Recorder()
    engine = FacetKernels(potential, lambda *arguments: recorder(*arguments))
    recordings = []
    for atoms, edges in TRIALS:
        recorder = _Recorder()
        engine.exchange = recorder.exchange
        recordings.append((recorder, _record(engine, atoms, edges)))
    (first, named), (second, _), (third, _) = recordings
    steps = [_Step(*three) for three in zip(first.steps, second.steps, third.steps, strict=True)]
    weights, offsets = bytearray(), {}
    for address in sorted(first.arrays.keys() & second.arrays.keys()):
        weights += bytes(-len(weights) % ALIGNED)
        offsets[address] = len(weights)
        weights += ctypes.string_at(address, first.bytes(address))
    sizes_of = {
        places[0].array: _size(*(r.bytes(p.array) for r, p in zip((first, second, third), places)))
        for step in steps
        for places in step.places
    }
    slots = [_Size(len(weights)), *([_Size(0)] * (len(NAMES) - 1))]
    slot_of = dict.fromkeys(offsets, 0)
    for name, address in named.items():
        slot_of[address] = NAMES.index(name)
        slots[slot_of[address]] = sizes_of[address]
    _share([[p[0].array for p in step.places] for step in steps], sizes_of, slot_of, slots)
    lines = [f"tesseral_gpu {VERSION}", f"block {sizes.group * sizes.groups}"]
    lines += [f"slots {len(slots)}", *(" ".join(map(str, slot)) for slot in slots)]
    lines += [f"steps {len(steps)}", *(step.line(slot_of, offsets) for step in steps)]
    return Plan(source(sizes), "\n".join(lines) + "\n", bytes(weights))


def _record(engine: FacetKernels, atoms: int, edges: int) -> dict[str, int]:
    """Run the engine; addresses of its inputs and results."""
    lengths = 3, edges, edges, atoms + 1, atoms + 1, edges
    lists = Lists(*(torch.zeros(length, dtype=torch.int32) for length in lengths))
    species = torch.zeros(atoms, dtype=torch.int32)
    vectors = torch.zeros(edges, 3, dtype=torch.float64)
    results = engine.with_lists(species, vectors, lists)
    named = zip(NAMES[1:], (species, vectors, *lists, *results), strict=True)
    return {name: each.data_ptr() for name, each in named if each is not None}


def _size(first: int, more_atoms: int, more_edges: int) -> _Size:
    """Size of an array from its bytes in the three recordings."""
    per_atom, per_edge = more_atoms - first, more_edges - first
    atoms, edges = TRIALS[0]
    return _Size(first - atoms * per_atom - edges * per_edge, per_atom, per_edge)


def _share(
    steps: list[list[int]], sizes: dict[int, _Size], slot_of: dict[int, int], slots: list[_Size]
) -> None:
    """Give arrays that are not needed at the same time the same slots.

    Args:
        steps: arrays that each step uses.
        sizes: their sizes.
        slot_of: their slots, of those that have one; completed.
        slots: sizes of the slots; completed.
    """
    last = {array: number for number, step in enumerate(steps) for array in step}
    ends: dict[int, int] = {}  # by slot, the last step that needs it
    for number, step in enumerate(steps):
        for array in step:
            if array in slot_of:
                continue
            size = sizes[array]
            free = [
                slot
                for slot, end in ends.items()
                if end < number and (slots[slot].per_edge > 0) == (size.per_edge > 0)
            ]
            if free:
                slot = min(free, key=lambda slot: abs(slots[slot].per_atom - size.per_atom))
                slots[slot] = _Size(*map(max, slots[slot], size))
            else:
                slot = len(slots)
                slots.append(size)
            slot_of[array], ends[slot] = slot, last[array]
