"""What the process can do for speed, and what a machine calls itself."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of giving them back to the system.

    Every training step frees and asks for the same large tensors; mapping them anew costs a page
    fault for every 4 kB, a quarter of the time of a step on CPUs. Only for programs that own
    their process, such as ``train-potential``.

    Returns:
        Whether it was done; not on systems without glibc.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    done = [mallopt(option, LARGEST_INT) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    return all(done)


def machine(device: torch.device) -> str:
    """Processor or GPU, and the number of threads, for the record."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}"
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            found = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        name = found[0] if found else name
    return f"{name}, {torch.get_num_threads()} threads"
