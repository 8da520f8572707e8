"""Executors of ``concurrent.futures``: processes of this machine, or those of another library.

Dask, Parsl and executorlib run tasks on the nodes of a cluster behind the same interface.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from tesseral.files import one_line
from tesseral.process import finished, worker_pool

Result = TypeVar("Result")

FORM = "write module:function or file.py:function, a function without arguments"


@contextmanager
def open_executor(spec: str | None, processes: int = 1) -> Iterator[Executor]:
    """Executor that ends with the block.

    The functions and arguments that are submitted must be picklable, and found in modules that can
    be imported where they run.

    Args:
        spec: ``module:function`` or ``file.py:function``, a function that returns an executor when
            it is called without arguments, for example one with
            ``dask.distributed.Client(…).get_executor()``. Default: processes of this machine,
            which end at once if the block raises an exception or this process dies.
        processes: number of processes; only without ``spec``.

    Raises:
        ValueError: there is no such function, it fails, or it returns no executor; ``processes``
            is less than 1.
    """
    if spec is None:
        if processes < 1:
            raise ValueError(f"`processes` is {processes}; it must be 1 or more")
        with worker_pool(processes) as pool:
            yield pool
        return
    executor = _made(spec)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False)  # what runs on a cluster may take hours
        raise
    executor.shutdown()


def check_executor(spec: str | None, processes: int | None) -> None:
    """Reject processes of this machine beside an executor, which has its own.

    Raises:
        ValueError: both are given.
    """
    if spec is not None and processes is not None and processes > 1:
        raise ValueError(
            f"`processes` is {processes}, but `executor` is given, which has its own number of "
            "workers; leave one of them out"
        )


def side_by_side(
    function: Callable[..., Result],
    tasks: Iterable[tuple[Any, ...]],
    spec: str | None,
    processes: int = 1,
) -> Generator[list[tuple[int, Result]], None, None]:
    """Results of a function for many tasks, as they finish; use it within ``contextlib.closing``.

    A worker that is killed loses its task; the other tasks are awaited.

    Args:
        function: called with the values of each task; what it raises ends all. From the workers of
            another library, only a ValueError or an OSError can be told from a loss of the task.
        tasks: arguments of the function.
        spec: as for `open_executor`.
        processes: as for `open_executor`.

    Yields:
        The number of each task that has finished, with its result; every half second.

    Raises:
        ChildProcessError: tasks were lost.
    """
    lost: BaseException | None = None
    losses = (BrokenExecutor,) if spec is None else (Exception, CancelledError)
    numbers: dict[Future[Result], int] = {}
    with open_executor(spec, processes) as executor:
        try:
            for number, task in enumerate(tasks):
                numbers[executor.submit(function, *task)] = number
            for futures in finished(numbers):
                results, wrong = [], None
                for future in futures:
                    try:
                        results.append((numbers[future], future.result()))
                    except (ValueError, OSError) as error:
                        wrong = error
                    except losses as error:
                        lost = error
                yield results
                if wrong is not None:
                    raise wrong
        except BrokenExecutor as error:  # before all tasks were submitted
            lost = error
        finally:
            for future in numbers:
                future.cancel()
    if lost is None:
        return
    if spec is not None:
        what = f"the executor lost structures: {type(lost).__name__}: {one_line(lost)}"
        raise ChildProcessError(f"{what}; run it again to resume") from lost
    raise ChildProcessError(
        "a process was killed, perhaps because memory ran out; run it again to resume, with fewer "
        "`processes` to use less memory"
    ) from lost


def _made(spec: str) -> Executor:
    """The executor that a function returns."""
    function = load_function(spec)
    try:
        executor = function()
    except Exception as error:  # of another library
        raise ValueError(
            f"`executor` {spec} fails: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not (callable(getattr(executor, "submit", None)) and hasattr(executor, "shutdown")):
        raise ValueError(
            f"`executor` {spec} returns a {type(executor).__name__}; it must return an executor "
            "with the interface of concurrent.futures"
        )
    found: Executor = executor
    return found


def load_function(spec: str) -> Callable[[], Any]:
    """The function that ``module:function`` or ``file.py:function`` names.

    Raises:
        ValueError: the module or file cannot be imported, or has no such function.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError(f"`executor` is {spec!r}; {FORM}")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else import_module(place)
    except Exception as error:  # a file may do anything when it is imported
        raise ValueError(
            f"`executor` is {spec}, but {place} cannot be imported: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"`executor` is {spec}, but {place} has no function {name}; {FORM}")
    made: Callable[[], Any] = function
    return made


def _from_file(path: Path) -> Any:
    """Module of a file that is not on the path of modules."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    described = importlib.util.spec_from_file_location(path.stem, path)
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module
