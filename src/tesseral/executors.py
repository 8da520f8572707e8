"""Executors of ``concurrent.futures``: processes of this machine, or those of another library.

Dask, Parsl and executorlib run tasks on the nodes of a cluster behind the same interface.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tesseral.files import one_line
from tesseral.process import worker_pool

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
