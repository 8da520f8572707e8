"""What a program can do for the speed of its process; for commands, never for library code."""

from __future__ import annotations

import ctypes
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of giving them back to the system.

    Every step frees and asks for the same large tensors; mapping them anew costs a page
    fault for every 4 kB, a quarter of the time of a step on CPUs. Only for programs that own
    their process, such as ``train-potential`` and the examples.

    Returns:
        Whether it was done; not on systems without glibc.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    done = [mallopt(option, LARGEST_INT) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    return all(done)
