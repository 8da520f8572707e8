"""Worker processes that never outlive the work they were started for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

POLL_SECONDS = 0.5

Result = TypeVar("Result")


@contextmanager
def worker_pool(
    processes: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that ends with the block; at once, if that ends with an exception.

    They end too if this process dies. Ctrl-C is for this process alone.

    Args:
        processes: how many.
        start: called in each of them first, with ``arguments``; both are pickled.
        arguments: of ``start``.
    """
    # Started anew, not forked: the parent has threads (of the progress bar, of libraries).
    context = get_context("spawn")
    alive, here = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        processes, context, initializer=_start_process, initargs=(alive, start, arguments)
    )
    try:
        yield pool
    except BaseException:
        here.close()  # ends the processes, whatever they are at
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        here.close()
        alive.close()


def finished(futures: Iterable[Future[Result]]) -> Iterator[list[Future[Result]]]:
    """Those futures that are done since the last time, every half second, until all are.

    An empty list, between, gives the caller the chance to look at something else.
    """
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
        yield list(done)


def _start_process(
    alive: Connection, start: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    """Let this process end at once when the other end of a pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with suppress(EOFError):
            alive.recv()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if start is not None:
        start(*arguments)
