"""Compiling, keeping and launching kernels, with stand-ins for the driver and the compiler."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tesseral.potentials.engine.gpu import cuda


class Driver:
    """Records launches; the numbers are read from memory as the driver would."""

    def __init__(self, error: int = 0) -> None:
        self.launches: list[tuple[int, int, list[Any]]] = []
        self.error = error
        self.kinds: tuple[Any, ...] = ()

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:
        function._obj.value = len(name)
        return 0

    def cuLaunchKernel(self, function: Any, x: int, y: int, z: int, block: int, *rest: Any) -> int:
        assert (y, z, *rest[:3]) == (1, 1, 1, 1, 0)
        values = [
            ctypes.cast(p, ctypes.POINTER(k))[0] for p, k in zip(rest[4], self.kinds, strict=True)
        ]
        self.launches.append((x, block, values))
        return self.error

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"out of resources"
        return 0


def kernels(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> cuda.CudaKernels:
    stream = SimpleNamespace(cuda_stream=5)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    made = cuda.CudaKernels.__new__(cuda.CudaKernels)
    made._driver, made._device, made._block = driver, torch.device("cpu"), 64
    made._functions, made._module = {}, ctypes.c_void_p()
    return made


def test_a_launch_has_enough_blocks_and_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, tensor = Driver(), torch.arange(3.0)
    driver.kinds = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_double
    run = kernels(driver, monkeypatch)
    run("some", 9, 16, tensor, None, 7, 0.5)  # 9 half-warps: 144 threads
    run("some", 65, 1, tensor, None, 7, 0.5)
    run("some", 0, 1, tensor, None, 7, 0.5)  # nothing to do
    values = [tensor.data_ptr(), None, 7, 0.5]
    assert driver.launches == [(3, 64, values), (2, 64, values)]


def test_an_error_of_the_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run = kernels(Driver(error=701), monkeypatch)
    with pytest.raises(cuda.CudaError, match="error 701, out of resources"):
        run("some", 1, 1)


class Compiler:
    """Returns the source as machine code, or fails."""

    def __init__(self, log: bytes = b"") -> None:
        self.log, self.runs = log, 0

    def nvrtcVersion(self, major: Any, minor: Any) -> None:
        major._obj.value, minor._obj.value = 12, 9

    def nvrtcCreateProgram(self, program: Any, text: bytes, *rest: Any) -> None:
        self.text = text

    def nvrtcCompileProgram(self, program: Any, number: int, options: Any) -> int:
        self.runs, self.options = self.runs + 1, [*options]
        return 6 if self.log else 0

    def nvrtcGetProgramLogSize(self, program: Any, size: Any) -> None:
        size._obj.value = len(self.log) + 1

    def nvrtcGetProgramLog(self, program: Any, buffer: Any) -> None:
        buffer.value = self.log

    def nvrtcGetCUBINSize(self, program: Any, size: Any) -> None:
        size._obj.value = len(self.text)

    def nvrtcGetCUBIN(self, program: Any, image: Any) -> None:
        image.raw = self.text

    def nvrtcGetPTXSize(self, program: Any, size: Any) -> None:
        size._obj.value = 3

    def nvrtcGetPTX(self, program: Any, image: Any) -> None:
        image.raw = b"ptx"

    def nvrtcGetNumSupportedArchs(self, number: Any) -> None:
        number._obj.value = 4

    def nvrtcGetSupportedArchs(self, kinds: Any) -> None:
        kinds[:] = [60, 75, 80, 90]

    def nvrtcDestroyProgram(self, program: Any) -> None:
        pass


def use(compiler: Compiler, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_compiler", lambda: compiler)
    monkeypatch.setattr(cuda, "CACHE", folder)


def test_machine_code_is_kept_for_each_kind_of_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler()
    use(compiler, tmp_path / "made" / "here", monkeypatch)
    for _ in range(2):
        assert cuda.machine_code("text", (9, 0)) == b"text"
    assert compiler.runs == 1
    cuda.machine_code("text", (8, 0))
    cuda.machine_code("other", (8, 0))
    assert compiler.runs == 3


def test_portable_code_is_for_the_oldest_gpu_that_the_kernels_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler()
    use(compiler, tmp_path, monkeypatch)
    assert cuda.portable_code("text") == b"ptx"
    assert b"--gpu-architecture=compute_75" in compiler.options


def test_without_a_place_for_it_machine_code_is_compiled_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    use(Compiler(), blocked, monkeypatch)
    assert cuda.machine_code("text", (9, 0)) == b"text"


def test_a_failure_to_compile_quotes_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Compiler(b"a warning\nx.h(3): error: no such thing\n"), tmp_path, monkeypatch)
    with pytest.raises(cuda.CudaError, match=r"for sm_90: x.h\(3\): error: no such thing"):
        cuda.machine_code("text", (9, 0))


def test_without_a_driver_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    cuda._driver.cache_clear()
    with pytest.raises(cuda.CudaError, match="no CUDA driver"):
        cuda._driver()
