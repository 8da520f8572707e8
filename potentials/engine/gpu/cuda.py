"""The kernels compiled for a GPU by NVRTC when a potential is first used, and kept on disk.

NVRTC comes with PyTorch for CUDA, and the driver with the card; both are called through ctypes, as
the compiled functions for CPUs are.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tesseral.files import write_whole
from tesseral.potentials.engine.gpu.host import Argument, as_c
from tesseral.potentials.engine.gpu.source import FOLDERS, digest

CACHE = Path("~/.cache/tesseral/kernels")
OLDEST = (7, 0)  # compute capability from which groups of lanes may take different branches
OPTIONS = ("-std=c++17", "-default-device")


class CudaError(RuntimeError):
    """The GPU, its driver or the compiler cannot be used, and why."""


class CudaKernels:
    """Kernels of a potential on one GPU."""

    def __init__(self, text: str, block: int, device: torch.device) -> None:
        """Compile, unless they are on disk already, and load.

        Args:
            text: translation unit, from ``source``.
            block: number of threads of a block.
            device: the GPU.

        Raises:
            CudaError: the GPU is too old, or compiling or loading failed.
        """
        self._driver, self._device, self._block = _driver(), device, block
        self._functions: dict[str, ctypes.c_void_p] = {}
        torch.cuda.init()  # type: ignore[no-untyped-call]
        with torch.cuda.device(device):
            torch.empty(1, device=device)  # makes the context of the device current
            self._module = ctypes.c_void_p()
            image = machine_code(text, torch.cuda.get_device_capability(device))
            self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), image))

    def __call__(self, name: str, items: int, lanes: int, *arguments: Argument) -> None:
        """Run a kernel on PyTorch's current stream.

        Args:
            name: of the kernel.
            items: number of atoms or edges.
            lanes: number of lanes that work on each: 1, or those of a group.
            arguments: tensors on the device, None for null, ints, and floats for doubles.
        """
        if items == 0:
            return
        blocks = -(-items * lanes // self._block)
        values = [as_c(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(each) for each in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        size = 1, 1, self._block, 1, 1, 0
        launch = self._driver.cuLaunchKernel
        self._check(launch(self._function(name), blocks, *size, stream, pointers, None))

    def _function(self, name: str) -> ctypes.c_void_p:
        if name not in self._functions:
            found = ctypes.c_void_p()
            get = self._driver.cuModuleGetFunction
            self._check(get(ctypes.byref(found), self._module, name.encode()))
            self._functions[name] = found
        return self._functions[name]

    def _check(self, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            reason = (text.value or b"").decode()
            raise CudaError(f"the CUDA driver reports error {code}, {reason}")


@lru_cache(maxsize=32)
def loaded(text: str, block: int, device: torch.device) -> CudaKernels:
    """Kernels on a GPU, the same ones for all potentials of the same sizes; see `CudaKernels`."""
    return CudaKernels(text, block, device)


def machine_code(text: str, capability: tuple[int, int]) -> bytes:
    """Machine code of a translation unit, from disk if it was compiled before.

    Args:
        text: translation unit, from ``source``.
        capability: compute capability of the GPU.

    Raises:
        CudaError: the GPU is too old, there is no compiler, or compiling failed.
    """
    if capability < OLDEST:
        found, least = (".".join(map(str, each)) for each in (capability, OLDEST))
        raise CudaError(f"the GPU has compute capability {found}, and the kernels need {least}")
    compiler = _compiler()
    version = ctypes.c_int(), ctypes.c_int()
    compiler.nvrtcVersion(*(ctypes.byref(each) for each in version))
    kind = f"sm_{capability[0]}{capability[1]}"
    about = kind, *(str(each.value) for each in version), *OPTIONS
    path = CACHE.expanduser() / f"{digest(text, *about)}.cubin"
    try:
        return path.read_bytes()
    except OSError:
        image, _ = compiled(compiler, text, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary:
            temporary.write_bytes(image)
    except OSError:  # a home that cannot be written to: compiled again next time
        pass
    return image


def portable_code(text: str) -> bytes:
    """PTX of a translation unit, which the driver compiles for any GPU that is new enough.

    Raises:
        CudaError: there is no compiler, or compiling failed.
    """
    compiler, number = _compiler(), ctypes.c_int()
    compiler.nvrtcGetNumSupportedArchs(ctypes.byref(number))
    kinds = (ctypes.c_int * number.value)()
    compiler.nvrtcGetSupportedArchs(kinds)
    least = 10 * OLDEST[0] + OLDEST[1]
    oldest = min(kind for kind in kinds if kind >= least)
    return compiled(compiler, text, f"compute_{oldest}")[0]


def compiled(compiler: Any, text: str, kind: str, more: Sequence[str] = ()) -> tuple[bytes, str]:
    """Machine code, or PTX for a virtual architecture, and messages from NVRTC.

    Args:
        compiler: the library.
        text: translation unit, from ``source``.
        kind: architecture, such as ``sm_90``, or a virtual one, such as ``compute_70``.
        more: further options.

    Raises:
        CudaError: compiling failed.
    """
    options = [
        *OPTIONS,
        *more,
        f"--gpu-architecture={kind}",
        *(f"-I{folder}" for folder in FOLDERS),
    ]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    compiler.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), b"potential.cu", 0, None, None
    )
    try:
        listed = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = compiler.nvrtcCompileProgram(program, len(options), listed)
        compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        compiler.nvrtcGetProgramLog(program, buffer)
        log = buffer.value.decode()
        if failed:
            first = next((line for line in log.splitlines() if "error" in line), "")
            raise CudaError(f"NVRTC did not compile the kernels for {kind}: {first}")
        name = "PTX" if kind.startswith("compute") else "CUBIN"
        getattr(compiler, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        getattr(compiler, f"nvrtcGet{name}")(program, image)
        return image.raw, log
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def has_driver() -> bool:
    """Whether a driver for NVIDIA's GPUs is installed."""
    try:
        _driver()
    except CudaError:
        return False
    return True


@lru_cache
def _driver() -> Any:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise CudaError(f"there is no CUDA driver ({name})") from None


@lru_cache
def _compiler() -> Any:
    """NVRTC of the CUDA version of PyTorch: loaded already, on the path, or in its wheels."""
    major = (torch.version.cuda or "12").split(".")[0]
    name = f"libnvrtc.so.{major}"
    wheels = Path(torch.__file__).parent.parent / "nvidia"
    for place in (name, *map(str, sorted(wheels.glob(f"*/lib/{name}*")))):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise CudaError(
        f"{name}, the compiler that comes with PyTorch for CUDA, was not found; run: pip install "
        f"nvidia-cuda-nvrtc-cu{major}"
    )
