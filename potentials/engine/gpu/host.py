"""The kernels compiled for the CPU, from the same source: for tests, and to try a benchmark.

It is no faster than the compiled functions of ``potentials/ops`` and needs a C++ compiler.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from tesseral.potentials.engine.gpu.source import FOLDERS, digest

Argument = Tensor | int | float | None


class HostKernels:
    """Kernels of a potential as functions of a shared library."""

    def __init__(self, text: str, folder: Path) -> None:
        """Compile, unless the folder has the library already.

        Args:
            text: translation unit, from ``source``.
            folder: where the library is kept.

        Raises:
            RuntimeError: the compiler failed.
        """
        library = folder / f"{digest(text)}.so"
        if not library.exists():
            unit = library.with_suffix(".cpp")
            unit.write_text(text)
            headers = [f"-I{path}" for path in FOLDERS]
            flags = (
                "-std=c++17 -O1 -march=native -Wno-psabi -Wno-unknown-pragmas -fPIC -shared".split()
            )
            command = ["g++", *flags, *headers, str(unit), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"g++ failed: {done.stderr[:2000]}")
        self._library = ctypes.CDLL(str(library))

    def __call__(self, name: str, items: int, lanes: int, *arguments: Argument) -> None:
        """Run a kernel; arguments as for `CudaKernels`."""
        function = getattr(self._library, name)
        function.restype = None
        function(*(as_c(argument) for argument in arguments))


def record(
    function: Callable[[], Sequence[Tensor | None]],
) -> tuple[Sequence[Tensor | None], Callable[[], None]]:
    """In the place of ``capture.record``: a replay runs the function again."""
    results = function()

    def replay() -> None:
        for place, values in zip(results, function(), strict=True):
            if place is not None and values is not None:
                place.copy_(values)

    return results, replay


def record_update(update: Callable[[], None]) -> Callable[[], None]:
    """In the place of ``capture.record_update``: a replay runs the function."""
    return update


def as_c(argument: Argument) -> ctypes._SimpleCData[int] | ctypes._SimpleCData[float]:
    """An argument of a kernel: the address of an array (null for None), an int, a double."""
    if argument is None:
        return ctypes.c_void_p(None)  # type: ignore[return-value]
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())  # type: ignore[return-value]
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int(argument)
