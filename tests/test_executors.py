"""Executors of this machine and of other libraries."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tesseral.executors import load_function, open_executor

MAKE = """
from concurrent.futures import ThreadPoolExecutor

def threads():
    return ThreadPoolExecutor(1)

def nothing():
    return 3

def fails():
    raise RuntimeError("no scheduler")

number = 4
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "site.py"
    path.write_text(MAKE)
    return path


def test_processes_of_this_machine():
    with open_executor(None, 1) as executor:
        assert executor.submit(os.getpid).result() != os.getpid()


def test_a_function_in_a_file(file):
    with open_executor(f"{file}:threads") as executor:
        assert isinstance(executor, ThreadPoolExecutor)
        assert executor.submit(abs, -3).result() == 3
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -3)


def test_an_error_in_the_block_also_ends_it(file):
    with pytest.raises(KeyError), open_executor(f"{file}:threads") as executor:
        raise KeyError
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -3)


def test_a_function_in_a_module():
    assert load_function("os:getpid") is os.getpid


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("threads", "write module:function"),
        ("{file}:nothing", "returns a int; it must return an executor"),
        ("{file}:fails", "fails: RuntimeError: no scheduler"),
        ("{file}:number", "has no function number"),
        ("{file}:other", "has no function other"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("no_such.py:f", "there is no file no_such.py"),
    ],
)
def test_errors_say_what_to_change(file, spec, words):
    with pytest.raises(ValueError, match=words), open_executor(spec.format(file=file)):
        pass


def test_less_than_one_process():
    with pytest.raises(ValueError, match="`processes` is 0"), open_executor(None, 0):
        pass
