"""Inference with one compiled function: energies, forces and virials without an autograd graph.

It supports the architectures in ``packing.PACKERS``, whose gradients are written out in
``csrc/facet.h`` and ``csrc/nequip.h``. There are no derivatives with respect to the weights;
training uses the operators.
"""

from __future__ import annotations

import threading
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tesseral.data.graph import Edges
from tesseral.potentials.engine.gpu import evaluate as gpu
from tesseral.potentials.engine.packing import Packed, can_pack, packed_weights
from tesseral.potentials.engine.results import AtomicResults
from tesseral.potentials.engine.state import state_of
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops.compiled import Graph, kernels


def applies(potential: object) -> bool:
    """Whether a potential can be evaluated this way, on the CPU or a GPU."""
    if not isinstance(potential, MessagePassing) or not potential.harmonics.fused:
        return False
    packed = potential in _cache and potential.embedding.is_cpu
    return packed or can_pack(potential) or gpu.applies(potential)


def evaluate(potential: MessagePassing, species: Tensor, edges: Edges) -> AtomicResults:
    """Energies, forces and virials.

    Args:
        potential: potential for which ``applies`` is true.
        species: (N,) index into ``elements``.
        edges: edges between the atoms, on the device of the potential.

    Raises:
        RuntimeError: the memory of the GPU is too small.
    """
    if gpu.on_gpu(potential):
        return gpu.evaluate(potential, species, edges)
    weights = _packed(potential).struct
    atoms, n_edges = species.shape[0], edges.senders.shape[0]
    results = AtomicResults(
        *(edges.vectors.new_empty(atoms, *sizes) for sizes in ((), (3,), (3, 3)))
    )
    if potential.uncertainty is not None:
        results = results._replace(uncertainties=torch.empty_like(results.energies))
    inputs = [tensor.contiguous() for tensor in (species, *edges)]
    graph = Graph(
        *(tensor.data_ptr() for tensor in inputs),
        atoms,
        n_edges,
        torch.get_num_threads() if n_edges > 500 else 1,
        *(tensor.data_ptr() for tensor in results[:3]),
        atoms,
        None,
        None if results.uncertainties is None else results.uncertainties.data_ptr(),
    )
    functions = kernels(potential.embedding.dtype)
    size = functions.workspace(weights, atoms, n_edges)
    functions.evaluate(weights, graph, _workspace(size).data_ptr())
    return results


_scratch = threading.local()


def _workspace(size: int) -> Tensor:
    """Memory reused between calls, since new memory costs a page fault per 4 kB."""
    memory: Tensor | None = getattr(_scratch, "memory", None)
    if memory is None or not size <= memory.numel() <= 4 * size + 2**26:
        memory = _scratch.memory = None  # free the old one first
        memory = torch.empty(size + size // 8, dtype=torch.uint8)
        _scratch.memory = memory
    return memory


class _Cached(NamedTuple):
    """Weights for the compiled function, and the state of the tensors they were made from."""

    packed: Packed
    tensors: list[Tensor]
    state: list[tuple[int, int]]


_cache: WeakKeyDictionary[MessagePassing, _Cached] = WeakKeyDictionary()


def _packed(potential: MessagePassing) -> Packed:
    """The weights for the compiled function; packed again after they have changed."""
    cached = _cache.get(potential)
    if cached is None or cached.state != state_of(cached.tensors):
        tensors = [*potential.parameters(), *potential.buffers()]
        cached = _Cached(packed_weights(potential), tensors, state_of(tensors))
        _cache[potential] = cached
    return cached.packed
