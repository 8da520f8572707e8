"""Atoms of other processes: with features exchanged between layers, nothing changes."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import numpy as np
import pytest
import rounding
import torch
from ase.build import bulk
from seeds import reseed
from torch import Tensor

from tesseral.data.graph import AtomicGraph, Edges, edge_vectors, edges_of
from tesseral.data.neighbors import atomic_graph
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.derivatives import predict
from tesseral.potentials.engine.evaluate import evaluate
from tesseral.potentials.engine.weights_bytes import weights_bytes
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops

INNER_RADII = (1.2, 1.7, 2.2)
needs_kernels = pytest.mark.skipif(not compiled.available(), reason="no compiled kernels here")


def potential(ops: str, dtype: torch.dtype = torch.float64, **options: object) -> MessagePassing:
    """Three layers, so that gradients pass through an exchange twice; all extras on."""
    settings = {"cutoff": 4.0, "layers": 3, "channels": 6}
    if "architecture" not in options:
        settings |= {"l_max": 2, "grid_channels": 8}
    reseed(3)
    model = MessagePassing(
        make_config(**{**settings, "zbl": True, **options}),
        (6, 14),
        reference_energies=[-1.0, -2.0],
        binding_energies=[-3.0, -4.0],
        inner_radii=INNER_RADII,
        dtype=dtype,
    )
    return select_ops(model.requires_grad_(False), ops)


def crystal() -> AtomicGraph:
    """Eight atoms, the first two closer than their inner radius, other bonds longer."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.positions[1] += 0.3 * (atoms.positions[0] - atoms.positions[1])
    return atomic_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (6, 14), 4.0)


def with_ghosts(graph: AtomicGraph) -> tuple[Tensor, Tensor]:
    """Senders of the edges, and the owner of every atom, where periodic images are ghosts."""
    n = len(graph.species)
    owner, senders, ghosts = list(range(n)), [], {}
    for sender, shift in zip(graph.senders.tolist(), graph.shifts.tolist(), strict=True):
        key = (sender, *shift)
        if any(shift) and key not in ghosts:
            ghosts[key] = len(owner)
            owner.append(sender)
        senders.append(ghosts.get(key, sender))
    assert len(owner) > 2 * n
    return torch.tensor(senders), torch.tensor(owner)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "product"},
        {"activation": "silu"},
        {"architecture": "dimenet", "l_max": 2},
        {"architecture": "egnn"},
        {"architecture": "frames", "frame_cutoff": 3.0},
        {"architecture": "frames", "group": "4mm"},
        {"architecture": "lieconv", "orientations": 24, "random_orientations": False},
        {"architecture": "mace", "l_max": 2},
        {"architecture": "nequip", "l_max": 2, "channels_by_degree": [6, 4, 2]},
        {"architecture": "painn"},
        {"architecture": "ponita", "l_max": 2, "random_orientations": False},
        {"architecture": "schnet"},
        {"architecture": "se3transformer", "l_max": 2},
        {"architecture": "segnn", "l_max": 2},
    ],
    ids=lambda options: next(iter(options.values())),
)
def test_layer_by_layer_with_ghosts_is_the_whole(options: dict[str, object]) -> None:
    model, graph = potential("reference", **options), crystal()
    n = len(graph.species)
    senders, owner = with_ghosts(graph)
    species = graph.species[owner]
    vectors = edge_vectors(graph).detach().requires_grad_(True)
    features, edges, energies = model.begin(species, Edges(vectors, senders, graph.receivers), n)
    for number in range(3):
        features, more = model.layer(number, features, species, edges, n)
        assert features.shape[0] == n
        features, energies = features[owner], energies + more  # the exchange
    (slope,) = torch.autograd.grad(energies.sum(), vectors)
    forces = torch.zeros(n, 3, dtype=torch.float64).index_add(0, graph.senders, slope)
    forces = forces.index_add(0, graph.receivers, -slope)
    expected, energies = predict(model, graph), energies.detach()
    # Each layer sums edges × components for an atom; random weights may give large numbers.
    components = 25 * model.embedding.shape[2]
    limit = rounding.limit(torch.float64, 3 * len(senders) / n * components)
    pairs = (energies, forces), (expected.atomic_energies, expected.forces)
    for name, deviation in zip(("energies", "forces"), rounding.deviations(*pairs), strict=True):
        print(f"{name}: relative deviation {deviation:.1e}, limit {limit:.1e}")
        assert deviation < limit


def test_one_layer_takes_ghosts_at_once() -> None:
    model, graph = potential("reference", layers=1), crystal()
    senders, owner = with_ghosts(graph)
    edges = Edges(edge_vectors(graph), senders, graph.receivers)
    energies = model(graph.species[owner], edges, len(graph.species))
    expected = predict(model, graph).atomic_energies
    limit = rounding.limit(torch.float64, len(senders) / len(graph.species) * 25)
    assert rounding.deviations([energies], [expected])[0] < limit


EXCHANGE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class Exchange(ctypes.Structure):
    """``tesseral_exchange`` of csrc/kernels.h."""

    _fields_ = [("spread", EXCHANGE), ("gather", EXCHANGE), ("context", ctypes.c_void_p)]


def run_compiled(
    weights: object, graph: AtomicGraph, dtype: torch.dtype
) -> tuple[Tensor, Tensor, list[str]]:
    """Energies, forces and the calls of the exchange; ghosts are images of the same process."""
    senders, owner = with_ghosts(graph)
    n, all_atoms = len(graph.species), len(owner)
    species, vectors = graph.species[owner], edge_vectors(graph).contiguous()
    energies, forces = torch.zeros(n, dtype=torch.float64), torch.zeros(all_atoms, 3).double()
    virials, calls = torch.zeros(n, 3, 3).double(), []
    kind = {torch.float32: np.float32, torch.float64: np.float64}[dtype]

    def rows(address: int, size: int) -> np.ndarray:
        width = size // np.dtype(kind).itemsize
        block = (ctypes.c_char * (all_atoms * size)).from_address(address)
        return np.frombuffer(block, dtype=kind).reshape(all_atoms, width)

    def spread(context: int, address: int, size: int) -> None:
        calls.append("spread")
        values = rows(address, size)
        values[n:] = values[owner[n:].numpy()]

    def gather(context: int, address: int, size: int) -> None:
        calls.append("gather")
        values = rows(address, size)
        np.add.at(values, owner[n:].numpy(), values[n:].copy())

    exchange = Exchange(EXCHANGE(spread), EXCHANGE(gather), None)
    inputs = (species, vectors, senders, graph.receivers)
    struct_ = compiled.Graph(
        *(tensor.data_ptr() for tensor in inputs),
        all_atoms,
        len(senders),
        1,
        *(tensor.data_ptr() for tensor in (energies, forces, virials)),
        n,
        ctypes.addressof(exchange),
    )
    functions = compiled.kernels(dtype)
    size = functions.workspace(weights, all_atoms, len(senders))
    scratch = torch.zeros(size, dtype=torch.uint8)
    functions.evaluate(weights, struct_, scratch.data_ptr())
    return energies, torch.zeros(n, 3).double().index_add(0, owner, forces), calls


NEQUIP = {"architecture": "nequip", "l_max": 2, "channels_by_degree": [6, 4, 2]}
LIKE_SEVENNET = {
    **NEQUIP,
    **{"gates": "silu", "odd_paths": True, "element_self_connection": False},
    **{"biases": True, "linear_readout": True, "kinks": [3.5, 4.0]},
}
LIKE_NEQUIX = {
    **NEQUIP,
    **{"gates": "silu", "element_self_connection": False, "linear_readout": True},
    **{"embedding_channels": 2, "field_norm": True},
}
COMPILED = pytest.mark.parametrize(
    "options",
    [{}, NEQUIP, LIKE_SEVENNET, LIKE_NEQUIX],
    ids=["facet", "nequip", "like sevennet", "like nequix"],
)


@needs_kernels
@COMPILED
@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_function_is_the_reference(options: dict[str, object], threads: int) -> None:
    """Energies, forces and virials, with an element that is not in the structure."""
    plain, fused, graph = (
        potential("reference", **options),
        potential("fused", **options),
        crystal(),
    )
    randomise(plain), randomise(fused)
    expected = predict(plain, graph)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = evaluate(fused, graph.species, edges_of(graph))
    finally:
        torch.set_num_threads(before)
    for one, other in (
        (found.energies, expected.atomic_energies),
        (found.forces, expected.forces),
        (found.virials.sum(dim=0), expected.virial[0]),
    ):
        print(float((one - other).abs().max()), "of", float(other.abs().max()))
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def randomise(model: MessagePassing) -> None:
    """Biases, which start as zeros, and factors of norms, which start equal."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator).double())
        elif ".norm." in name:
            parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator).double())


@needs_kernels
@COMPILED
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_function_exchanges(dtype: torch.dtype, options: dict[str, object]) -> None:
    model, graph = potential("fused", dtype, **options), crystal()
    expected = evaluate(model, graph.species, edges_of(graph))
    image = weights_bytes(model)
    weights, keep = loaded(image)
    energies, forces, calls = run_compiled(weights, graph, dtype)
    assert calls == ["spread", "spread", "gather", "gather"]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    scale = float(expected.forces.abs().max())
    torch.testing.assert_close(energies, expected.energies, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(forces, expected.forces, rtol=0, atol=tolerance * scale)
    assert len(keep) == len(image)


@needs_kernels
def test_compiled_repulsion_is_that_of_pytorch() -> None:
    graph = crystal()
    plain, fused = potential("reference"), potential("fused")
    without = potential("fused", zbl=False)
    expected, found = predict(plain, graph), predict(fused, graph)
    for name in ("energy", "atomic_energies", "forces", "virial"):
        one, other = getattr(expected, name), getattr(found, name)
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)
    assert float((found.forces - predict(without, graph).forces).abs().max()) > 0.1


@needs_kernels
@COMPILED
def test_vectors_of_distant_atoms_are_used_in_place(options: dict[str, object]) -> None:
    """Without a close pair, the results are those without inner radii, to the last digit."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    graph = atomic_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, (6, 14), 4.0)
    model = potential("fused", **options)
    found = evaluate(model, graph.species, edges_of(graph))
    without = potential("fused", **options)
    without.short_range = None
    expected = evaluate(without, graph.species, edges_of(graph))
    assert all(torch.equal(one, other) for one, other in zip(found[:3], expected[:3], strict=True))


def loaded(image: bytes) -> tuple[compiled.PotentialWeights, ctypes.Array[ctypes.c_char]]:
    """The struct in a block, as a program in C makes it; and the block, which must outlive it."""
    block = ctypes.create_string_buffer(image, len(image))
    start = ctypes.addressof(block)
    version, number, facet, pointers, count = struct.unpack_from("<5q", image, 8)
    assert image[:8] == b"tesseral" and version == compiled.VERSION and number in (4, 8)
    for place in struct.unpack_from(f"<{count}q", image, pointers):
        slot = ctypes.c_int64.from_address(start + place)
        slot.value += start
    return compiled.PotentialWeights.from_address(start + facet), block


@needs_kernels
def test_image_without_optional_parts(small_model: Path) -> None:
    from tesseral.deploy.modelfile import load_model

    model, _ = load_model(small_model, ops="fused")
    weights, _ = loaded(weights_bytes(model))
    assert not weights.binding_energies and not weights.zbl_charge
    assert not weights.inner_radii
    assert weights.layers == 2 and weights.species == 2
