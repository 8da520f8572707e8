"""Use of the kernels for GPUs by the calculators, simulated on the CPU, and their fallbacks."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from ase.build import bulk

from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.modelfile import load_model
from tesseral.potentials.derivatives import sum_in_order
from tesseral.potentials.engine import evaluate as engine
from tesseral.potentials.engine.gpu import cuda, evaluate
from tesseral.potentials.engine.gpu.host import HostKernels
from tesseral.potentials.ops import compiled

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
    pytest.mark.skipif(not compiled.available(), reason="no compiled kernels"),
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The CPU passes for a GPU; names of the kernels that were run."""
    folder, ran = tmp_path_factory.getbasetemp(), []

    def make(text: str, block: int, device: torch.device) -> evaluate.Kernels:
        kernels = HostKernels(text, folder)

        def run(name: str, *arguments: object) -> None:
            ran.append(name)
            kernels(name, *arguments)  # type: ignore[arg-type]

        return run

    monkeypatch.setattr(evaluate, "on_gpu", lambda potential: True)
    monkeypatch.setattr(evaluate, "make_kernels", make)
    monkeypatch.setattr(engine, "can_pack", lambda potential: False)
    return ran


def crystal(calculator: TesseralCalculator):
    atoms = bulk("SiC", "zincblende", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = calculator
    return atoms


def test_the_calculator_gives_the_same(small_model: Path, gpu: list[str]) -> None:
    found, plain = (
        crystal(TesseralCalculator(small_model, ops=ops, dtype="float64", device="cpu"))
        for ops in ("auto", "reference")
    )
    forces, stress = found.get_forces(), found.get_stress()
    assert "pull_2" in gpu and "write_neighbors" in gpu
    gpu.clear()
    assert abs(forces - plain.get_forces()).max() < 1e-10
    assert abs(stress - plain.get_stress()).max() < 1e-12
    assert not gpu  # not even once in the reference


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


def test_kernels_that_give_other_numbers_are_refused(
    small_model: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = evaluate.make_kernels

    def broken(text: str, block: int, device: torch.device) -> evaluate.Kernels:
        kernels = make(text, block, device)

        def run(name: str, *arguments: object) -> None:
            kernels(name, *arguments)  # type: ignore[arg-type]
            if name.startswith("convolve"):
                arguments[-1].mul_(1.1)  # type: ignore[attr-defined]

        return run

    monkeypatch.setattr(evaluate, "make_kernels", broken)
    with pytest.warns(UserWarning, match="deviate from the stored results by"):
        potential, _ = load_model(small_model)
    assert not engine.applies(potential)


def test_a_full_memory_says_how_many_atoms_fit(
    small_model: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = crystal(TesseralCalculator(small_model, device="cpu"))

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(evaluate.FacetKernels, "evaluate", full)
    with pytest.raises(RuntimeError, match=r"8 atoms with \d+ edges need about .* GB are free"):
        atoms.get_forces()


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
