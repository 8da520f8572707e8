"""Executors of this machine and of other libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


DASK = """
from dask.distributed import Client

def cluster():
    return Client(n_workers=1, threads_per_worker=1, dashboard_address=":0").get_executor()
"""
EXECUTORLIB = """
from executorlib import SingleNodeExecutor

def cluster():
    return SingleNodeExecutor(max_workers=1)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "site.py"
    path.write_text(MAKE)
    return path


def test_processes_of_this_machine():
    with open_executor(None, 1) as executor:
        assert executor.submit(os.getpid).result() != os.getpid()


def start_program(note: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(note).write_text(str(program.pid))
    program.wait()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the processes are looked up in /proc")
def test_programs_of_the_processes_end_too(tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(KeyError), open_executor(None, 1) as executor:
        executor.submit(start_program, str(note))
        while not note.exists() or not note.read_text():
            time.sleep(0.05)
        raise KeyError
    for _ in range(100):
        status = Path(f"/proc/{note.read_text()}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the program still runs")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask(tmp_path, own_environment):
    pytest.importorskip("distributed")
    path = tmp_path / "site.py"
    path.write_text(DASK)
    with open_executor(f"{path}:cluster") as executor:
        assert executor.submit(pow, 2, 5).result() == 32


@pytest.mark.slow
def test_executorlib(tmp_path):
    pytest.importorskip("executorlib")
    path = tmp_path / "site.py"
    path.write_text(EXECUTORLIB)
    with open_executor(f"{path}:cluster") as executor:
        assert executor.submit(pow, 2, 5).result() == 32


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
