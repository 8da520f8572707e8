"""Settings and helpers of the current process: memory, signals, threads, worker processes.

The functions that change the process (memory, threads, signals) are for programs; library functions
never call them, except `survive_forks`, which changes forked children only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants of glibc's malloc.h
LARGEST_INT = 2**31 - 1
POLL_SECONDS = 0.5

Result = TypeVar("Result")


def keep_freed_memory() -> bool:
    """Make glibc keep large freed blocks instead of returning them to the system.

    Every step frees and allocates the same large tensors. Mapping them again costs a page fault
    for every 4 kB, a quarter of the time of a step on CPUs. Only for programs that own their
    process, such as ``train-potential`` and the examples.

    Returns:
        True if the setting was applied, False on systems without glibc.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    done = [mallopt(option, LARGEST_INT) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    return all(done)


@contextmanager
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C to the end of a step, so that no step is interrupted and no signal is lost.

    Also works in programs that a shell has started in the background, where Python itself ignores
    the signal.

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


def let_waiting_threads_sleep() -> None:
    """Limit the time for which waiting threads spin; must precede the import of torch.

    If other programs use the cores too, a spinning thread delays the very thread that it waits
    for: training on two threads beside two busy processes came to a standstill, 2 steps in 25 s.
    With this many spins (microseconds) it runs at half speed, and on an idle machine at 0.92 of
    the speed of long spins. Threads that do not spin at all lose a third there.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@lru_cache
def survive_forks() -> None:
    """Let processes forked from this one compute with PyTorch, on one thread each.

    A forked process inherits the state of OpenMP but not its threads: with more than one, the first
    computation would wait for ever for those of the parent. Called before this process computes.
    """
    import torch  # imported here since it takes a second

    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def machine(device: torch.device) -> str:
    """Name of the processor or GPU, and the number of threads."""
    import torch  # imported here since it takes a second

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}"
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            found = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        name = found[0] if found else name
    return f"{name}, {torch.get_num_threads()} threads"


@contextmanager
def worker_pool(
    processes: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Pool of processes that ends with the block, and at once if the block raises an exception.

    The processes, and programs that they start, also end if this process dies. Ctrl-C reaches this
    process only.

    Args:
        processes: number of processes.
        start: function called first in each process, with ``arguments``; both are pickled.
        arguments: arguments of ``start``.
    """
    # Spawned, not forked: the parent has threads (of the progress bar, of libraries).
    context = get_context("spawn")
    alive, here = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        processes, context, initializer=_start_process, initargs=(alive, start, arguments)
    )
    try:
        yield pool
    except BaseException:
        here.close()  # ends the processes, whatever they are doing
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        here.close()
        alive.close()


def finished(futures: Iterable[Future[Result]]) -> Iterator[list[Future[Result]]]:
    """Yield the futures that have finished since the last time, every half second, until all have.

    An empty list in between lets the caller check something else.
    """
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
        yield list(done)


def _start_process(
    alive: Connection, start: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    """Let this process, and programs that it starts, end at once when a pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    group = hasattr(os, "setpgid")  # Windows has none
    if group:
        os.setpgid(0, 0)

    def watch() -> None:
        with suppress(EOFError):
            alive.recv()
        if group:
            os.killpg(0, signal.SIGTERM)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if start is not None:
        start(*arguments)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
