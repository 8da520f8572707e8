"""Use of the kernels for GPUs, or of plain PyTorch where they cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tesseral.data.graph import Edges
from tesseral.potentials.engine.gpu import facet, neighbors, nequip, nequip_training, training
from tesseral.potentials.engine.gpu.capture import Captured, record
from tesseral.potentials.engine.gpu.cuda import CudaError, loaded
from tesseral.potentials.engine.gpu.facet import FacetKernels
from tesseral.potentials.engine.gpu.geometry import Kernels, Lists
from tesseral.potentials.engine.gpu.layers import LayerKernels
from tesseral.potentials.engine.gpu.nequip import NequIPKernels
from tesseral.potentials.engine.gpu.source import (
    AnySizes,
    nequip_source,
    nequip_training_source,
    source,
    training_source,
)
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.engine.state import state_of
from tesseral.potentials.message_passing import MessagePassing

Array = NDArray[np.float64]
Search = Callable[..., tuple[Any, Any, Any]]


class Form(NamedTuple):
    """Kernels of one architecture."""

    supports: Callable[[MessagePassing], bool]
    sizes_of: Callable[[MessagePassing], AnySizes]
    source: Callable[[Any], str]  # of the kernels for some sizes
    training_source: Callable[[Any], str]
    make: Callable[[MessagePassing, Kernels], LayerKernels]
    train: training.Evaluate


FORMS = (
    Form(
        *(facet.supports, facet.sizes_of, source, training_source),
        *(FacetKernels, training.evaluate),
    ),
    Form(
        *(nequip.supports, nequip.sizes_of, nequip_source, nequip_training_source),
        *(NequIPKernels, nequip_training.evaluate),
    ),
)


class _Cached(NamedTuple):
    """Kernels of a potential, and the weights they were made of."""

    kernels: LayerKernels
    captured: Captured
    tensors: list[Tensor]
    state: list[tuple[int, int]]


_cache: WeakKeyDictionary[MessagePassing, _Cached] = WeakKeyDictionary()
_trusted: WeakKeyDictionary[MessagePassing, Kernels] = WeakKeyDictionary()  # for training
_refused: WeakSet[nn.Module] = WeakSet()


def applies(potential: MessagePassing) -> bool:
    """Whether a potential is on a GPU and is computed by the kernels, which are compiled now."""
    return _uses_gpu(potential) and _kernels(potential) is not None


def trains(potential: MessagePassing) -> bool:
    """Whether a potential is on a GPU and is trained by the kernels, which are compiled now.

    Before they are used for a potential, their gradients are compared with those of autograd.
    """
    kernels = training_kernels(potential) if _uses_gpu(potential) else None
    if kernels is None:
        return False
    if _trusted.get(potential) is kernels:
        return True
    form = form_of(potential)
    assert form is not None
    deviation = training.deviation(potential, kernels, form.train)
    if not deviation <= training.TOLERANCE[potential.embedding.dtype]:
        refuse(potential, f"gradients of its kernels deviate from autograd by {deviation:.1e}")
        return False
    _trusted[potential] = kernels
    return True


def training_kernels(potential: MessagePassing) -> Kernels | None:
    """The kernels for training a potential; None, after a warning, if there are none."""
    form = form_of(potential)
    if form is None:
        return None
    sizes = form.sizes_of(potential)
    return _compiled(potential, sizes, form.training_source(sizes))


def train(
    potential: MessagePassing, species: Tensor, vectors: Tensor, lists: Lists
) -> AtomicResults:
    """Energies, forces and virials, which can be differentiated with respect to the weights.

    Args:
        potential: potential for which ``trains`` is true.
        species: (N,) index into ``elements``.
        vectors: (E, 3) Å, on the device of the potential.
        lists: the edges of each atom.
    """
    form = form_of(potential)
    assert form is not None
    with torch.cuda.device_of(vectors):  # type: ignore[no-untyped-call]
        return form.train(potential, _trusted[potential], species, vectors.detach(), lists)


def evaluate(potential: MessagePassing, species: Tensor, edges: Edges) -> AtomicResults:
    """Energies, forces and virials.

    Args:
        potential: potential for which ``applies`` is true.
        species: (N,) index into ``elements``.
        edges: edges between the atoms, on the device of the potential.

    Raises:
        RuntimeError: the memory of the GPU is too small.
    """
    cached = _kernels(potential)
    assert cached is not None
    kernels = cached.kernels
    try:
        with torch.cuda.device_of(edges.vectors):  # type: ignore[no-untyped-call]
            lists = kernels.lists(edges, len(species))
            return cached.captured(species, edges.vectors, lists)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(too_large(len(species), len(edges.senders), kernels.sizes)) from error


def too_large(atoms: int, edges: int, sizes: AnySizes) -> str:
    """Message for a structure that does not fit into the memory of the GPU."""
    needed = bytes_needed(atoms, edges, sizes)
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    fitting = int(atoms * free / needed)
    return (
        f"{atoms} atoms with {edges} edges need about {needed / 1e9:.1f} GB of the GPU's memory, "
        f"and {free / 1e9:.1f} GB are free, enough for about {fitting} atoms; compute fewer atoms "
        "at a time, or on the CPU (`device='cpu'`)"
    )


def bytes_needed(atoms: int, edges: int, sizes: AnySizes) -> int:
    """Memory of a call: arrays that are alive at the same time, with the graph and the results."""
    size = sizes.dtype.itemsize
    per_atom = sizes.numbers_per_atom * size + 8 * (1 + 3 + 9) + 4 * 3 + 8
    rows = 2 * (sizes.l_edge + 1) ** 2 * size
    per_edge = rows + 8 * (3 + 3) + 4 * 4 + 8 * 2  # vectors, gradients, lists, indices
    return atoms * per_atom + edges * per_edge


def refuse(potential: nn.Module, reason: str) -> None:
    """Use plain PyTorch for a potential on a GPU from now on, and say so."""
    warnings.warn(
        f"this potential runs in plain PyTorch on the GPU, several times slower: {reason}",
        stacklevel=3,
    )
    _refused.add(potential)


def on_gpu(potential: MessagePassing) -> bool:
    """Whether the weights are on a GPU of CUDA; ROCm has no NVRTC."""
    return potential.embedding.is_cuda and torch.version.cuda is not None


def make_kernels(text: str, block: int, device: torch.device) -> Kernels:
    """Kernels for a GPU; see `CudaKernels`."""
    return loaded(text, block, device)


def find_neighbors(
    potential: MessagePassing,
    positions: Tensor,
    structure: Tensor,
    *about: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges between the atoms of many systems, found on the GPU of a potential.

    Args:
        potential: potential for which ``applies`` is true.
        positions: (N, 3) Å, float64, on its device.
        structure: (N,) index of the system of each atom, sorted.
        about: the other arguments of ``neighbors.search``.
    """
    kernels = make_kernels(neighbors.SOURCE, neighbors.BLOCK, positions.device)
    with torch.cuda.device_of(positions):  # type: ignore[no-untyped-call]
        return neighbors.search(kernels, positions, structure, *about)


def neighbor_search(potential: MessagePassing) -> Search | None:
    """Search for neighbours on the GPU of a potential, or None if the kernels are not used.

    Its arguments are arrays of NumPy: positions, box, inverse, periodic directions, and the
    cutoff. The results are tensors on the GPU.
    """
    if not applies(potential):
        return None
    device = potential.embedding.device

    def search(
        positions: Array, box: Array, inverse: Array, pbc: NDArray[np.bool_], cutoff: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        points = torch.tensor(positions, device=device)
        one = torch.zeros(len(points), dtype=torch.int64, device=device)
        rows, columns, periodic = (torch.tensor(each)[None] for each in (box, inverse, pbc))
        return find_neighbors(potential, points, one, rows, columns, periodic, cutoff)

    return search


def form_of(potential: MessagePassing) -> Form | None:
    """The kernels for the architecture of a potential, on any device, or None."""
    return next((form for form in FORMS if form.supports(potential)), None)


def _uses_gpu(potential: MessagePassing) -> bool:
    return on_gpu(potential) and potential.harmonics.fused


def _kernels(potential: MessagePassing) -> _Cached | None:
    """The kernels of a potential, with its weights of now; None if they cannot be used."""
    if potential in _refused:
        return None
    cached = _cache.get(potential)
    if cached is not None and cached.state == state_of(cached.tensors):
        return cached
    form = form_of(potential)
    if form is None:
        refuse(potential, "its architecture or its options have no kernels")
        return None
    sizes = form.sizes_of(potential)
    compiled = _compiled(potential, sizes, form.source(sizes))
    if compiled is None:
        return None
    tensors = [*potential.parameters(), *potential.buffers()]
    kernels = form.make(potential, compiled)
    captured = Captured(kernels.with_lists, record)
    found = _Cached(kernels, captured, tensors, state_of(tensors))
    _cache[potential] = found
    return found


def _compiled(potential: MessagePassing, sizes: AnySizes, text: str) -> Kernels | None:
    """Kernels for a potential; None, after a warning, if there are none."""
    if potential in _refused:
        return None
    try:
        return make_kernels(text, sizes.group * sizes.groups, potential.embedding.device)
    except CudaError as error:
        refuse(potential, str(error))
        return None
