"""Kernels for GPUs compiled for the CPU, once for all tests."""

from functools import lru_cache
from pathlib import Path
from tempfile import gettempdir

from tesseral.potentials.engine.gpu.host import HostKernels


@lru_cache
def host_kernels(text: str) -> HostKernels:
    """Kernels of a translation unit, kept in the folder for temporary files."""
    folder = Path(gettempdir()) / "tesseral-host-kernels"
    folder.mkdir(exist_ok=True)
    return HostKernels(text, folder)
