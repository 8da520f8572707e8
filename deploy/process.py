"""What a program can do for its process: memory, signals; for commands, never for library code."""

from __future__ import annotations

import ctypes
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C wait for the end of a step, so that no step is cut in two and no signal is lost.

    Also works in programs that a shell has started in the background, where Python itself leaves
    the signal alone.

    Yields:
        A function that raises KeyboardInterrupt if there was a signal; call it after each step.
    """
    caught = threading.Event()

    def check() -> None:
        if caught.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    previous = signal.signal(signal.SIGINT, lambda *_: caught.set())
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous)
