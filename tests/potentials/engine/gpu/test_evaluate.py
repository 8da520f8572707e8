"""Use of the kernels for GPUs by the calculators, simulated on the CPU, and their fallbacks."""

from __future__ import annotations

import gc
import shutil
import warnings
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from ase.build import bulk

from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.graph import AtomicGraph, join_graphs
from tesseral.data.neighbors import atomic_graph
from tesseral.deploy.card import ModelCard
from tesseral.deploy.modelfile import build_potential, load_model, save_model
from tesseral.potentials.architectures.facet import FacetConfig
from tesseral.potentials.architectures.nequip import NequIPConfig
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.derivatives import predict, sum_in_order
from tesseral.potentials.engine import evaluate as engine
from tesseral.potentials.engine.gpu import capture, cuda, evaluate, host
from tesseral.potentials.engine.gpu.capture import Recorded, Results
from tesseral.potentials.engine.gpu.host import HostKernels
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
    pytest.mark.skipif(not compiled.available(), reason="no compiled kernels"),
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The CPU passes for a GPU; names of the kernels that were run."""
    folder, ran = tmp_path_factory.getbasetemp(), []

    @lru_cache
    def make(text: str, block: int, device: torch.device) -> evaluate.Kernels:
        kernels = HostKernels(text, folder)

        def run(name: str, *arguments: object) -> None:
            ran.append(name)
            kernels(name, *arguments)  # type: ignore[arg-type]

        return run

    def record(function: Callable[[], Results]) -> Recorded:
        results, replay = host.record(function)
        return results, lambda: (ran.append("replay"), replay())[1]

    monkeypatch.setattr(capture, "CALLS", 2)
    monkeypatch.setattr(evaluate, "on_gpu", lambda potential: True)
    monkeypatch.setattr(evaluate, "make_kernels", make)
    monkeypatch.setattr(evaluate, "record", record)
    monkeypatch.setattr(engine, "can_pack", lambda potential: False)
    return ran


@pytest.fixture
def small_nequip(tmp_path: Path) -> Path:
    """A saved NequIP potential for C and Si with random weights."""
    config = NequIPConfig(cutoff=4.0, channels=8, l_max=1, odd_paths=True, linear_readout=True)
    card = ModelCard(
        config=config,
        elements=(6, 14),
        reference_energies=(-1.5, -2.5),
        energy_scale=1.0,
        mean_neighbors=20.0,
    )
    torch.manual_seed(1)
    save_model(tmp_path / "nequip.safetensors", build_potential(card), card)
    return tmp_path / "nequip.safetensors"


@pytest.fixture(params=["small_model", "small_nequip"])
def any_model(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def crystal(calculator: TesseralCalculator):
    atoms = bulk("SiC", "zincblende", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = calculator
    return atoms


def test_the_calculator_gives_the_same(any_model: Path, gpu: list[str]) -> None:
    found, plain = (
        crystal(TesseralCalculator(any_model, ops=ops, dtype="float64", device="cpu"))
        for ops in ("auto", "reference")
    )
    forces, stress = found.get_forces(), found.get_stress()
    assert {"pull_2", "pull_0_1_1"} & {*gpu} and "write_neighbors" in gpu
    gpu.clear()
    assert abs(forces - plain.get_forces()).max() < 1e-10
    assert abs(stress - plain.get_stress()).max() < 1e-12
    assert not gpu  # not even once in the reference


def test_recorded_calls_give_the_same(small_model: Path, gpu: list[str]) -> None:
    found, plain = (
        crystal(TesseralCalculator(small_model, ops=ops, dtype="float64", device="cpu"))
        for ops in ("auto", "reference")
    )
    for step in range(5):
        for atoms in (found, plain):
            atoms.rattle(0.02, seed=step)
        assert abs(found.get_forces() - plain.get_forces()).max() < 1e-10
    assert gpu.count("replay") > 1
    found.positions[1] = found.positions[0] + 0.001
    with pytest.raises(ValueError, match="atoms overlap"):
        found.get_forces()


def test_changed_weights_are_used(small_model: Path, gpu: list[str]) -> None:
    atoms = crystal(TesseralCalculator(small_model, device="cpu"))
    before = atoms.get_forces()
    with torch.no_grad():
        atoms.calc.potential.scale.scale.mul_(2)
    atoms.calc.reset()
    assert abs(atoms.get_forces() - 2 * before).max() < 1e-5


def test_a_failure_to_compile_is_said_once(
    small_model: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str, block: int, device: torch.device) -> evaluate.Kernels:
        raise cuda.CudaError("there is no CUDA driver (libcuda.so.1)")

    monkeypatch.setattr(evaluate, "make_kernels", fail)
    with pytest.warns(UserWarning, match="plain PyTorch on the GPU.*no CUDA driver"):
        potential, _ = load_model(small_model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not engine.applies(potential)


@pytest.mark.parametrize("options", [{"order": 3}, {"architecture": "painn"}], ids=str)
def test_a_potential_without_kernels_is_said_once(
    gpu: list[str], options: dict[str, object]
) -> None:
    potential = select_ops(MessagePassing(make_config(**options), (6, 14)))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="plain PyTorch on the GPU.* have no kernels"):
        assert not engine.applies(potential)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not engine.applies(potential)


def broken(beginning: str, result: int) -> Callable[..., evaluate.Kernels]:
    """Makes kernels of which those with this beginning of the name give a wrong result."""
    make = evaluate.make_kernels

    @lru_cache
    def made(text: str, block: int, device: torch.device) -> evaluate.Kernels:
        kernels = make(text, block, device)

        def run(name: str, *arguments: object) -> None:
            kernels(name, *arguments)  # type: ignore[arg-type]
            if name.startswith(beginning):
                arguments[result].mul_(1.1)  # type: ignore[attr-defined]

        return run

    return made


def test_kernels_that_give_other_numbers_are_refused(
    any_model: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "make_kernels", broken("convolve", -1))
    with pytest.warns(UserWarning, match="deviate from the stored results by"):
        potential, _ = load_model(any_model)
    assert not engine.applies(potential)


def test_a_full_memory_says_how_many_atoms_fit(
    any_model: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = crystal(TesseralCalculator(any_model, device="cpu"))

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(evaluate.Captured, "__call__", full)
    with pytest.raises(RuntimeError, match=r"8 atoms with \d+ edges need about .* GB are free"):
        atoms.get_forces()


def trained(ops: str) -> tuple[MessagePassing, AtomicGraph]:
    """A potential in training and a batch of two structures."""
    torch.manual_seed(0)
    config = FacetConfig(cutoff=4.0, channels=16, grid_channels=16, l_max=2)
    potential = select_ops(MessagePassing(config, (6, 14), dtype=torch.float64), ops)
    graphs = []
    for seed in range(2):
        atoms = bulk("SiC", "zincblende", a=4.5)
        atoms.rattle(0.1, seed=seed)
        about = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
        graphs.append(atomic_graph(*about, (6, 14), 4.0))
    return potential, join_graphs(graphs)  # type: ignore[return-value]


def take_steps(potential: MessagePassing, graph: AtomicGraph) -> list[torch.Tensor]:
    """Weights after four steps of a training with energies, forces and virials."""
    optimizer = torch.optim.SGD(potential.parameters(), lr=1e-11)
    for _ in range(4):
        found = predict(potential, graph, create_graph=True)
        loss = found.energy.square().sum() + found.forces.square().sum()
        optimizer.zero_grad()
        (loss + found.virial.square().sum()).backward()
        optimizer.step()
    return [weight.detach() for weight in potential.parameters()]


def test_training_steps_are_those_of_plain_pytorch(gpu: list[str]) -> None:
    weights = take_steps(*trained("auto"))
    assert {"move_0", "derive_moved_2", "edges_along"} <= {*gpu}
    gpu.clear()
    expected = take_steps(*trained("reference"))
    start = [weight.detach() for weight in trained("reference")[0].parameters()]
    assert not gpu
    for one, other, before in zip(weights, expected, start, strict=True):
        change = float((other - before).norm())
        assert float((one - other).norm()) < 1e-9 * change + 1e-15 * float(before.norm())


def test_a_trained_potential_can_be_forgotten(gpu: list[str]) -> None:
    potential, graph = trained("auto")
    take_steps(potential, graph)
    assert gpu
    known = weakref.ref(potential)
    del potential
    gc.collect()
    assert known() is None


def test_training_kernels_with_other_gradients_are_refused_once(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "make_kernels", broken("derive_moved", -2))
    potential, graph = trained("auto")
    with pytest.warns(UserWarning, match="gradients of its kernels deviate from autograd by"):
        weights = take_steps(potential, graph)
    for one, other in zip(weights, take_steps(*trained("reference")), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_nequip_is_trained_by_the_kernels(small_nequip: Path, gpu: list[str]) -> None:
    _, graph = trained("auto")
    found, expected = (
        take_steps(select_ops(load_model(small_nequip)[0].double(), ops), graph)
        for ops in ("auto", "reference")
    )
    assert {"move_0_1_1", "derive_moved_0_1_1", "derive_1_1_0", "edges_along"} <= {*gpu}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_an_old_gpu_is_refused() -> None:
    with pytest.raises(cuda.CudaError, match=r"capability 6\.1, and the kernels need 7\.0"):
        cuda.machine_code("", (6, 1))


def test_sums_in_order() -> None:
    values = torch.arange(12.0, dtype=torch.float64).view(6, 2)
    structure = torch.tensor([0, 0, 2, 2, 2, 3])  # the second has no atoms
    found = sum_in_order(values, structure, 4)
    expected = torch.zeros(4, 2, dtype=torch.float64).index_add(0, structure, values)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(sum_in_order(values, structure * 0, 1), values.sum(0)[None])
