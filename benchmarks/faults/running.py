"""Cases, each in a process of its own with limits of time and memory, and their outcomes.

The parent imports everything once and has one thread; a case is a fork of it. Neither a crash nor
endless work in a case affects the others.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError

from tesseral.commands.main import main

CPU_SECONDS, WALL_SECONDS = 25, 120  # of a case; more is a hang
MEMORY = 4 * 2**30  # bytes of address space that a case may use beyond its parent's
LONGEST = 1500  # characters of a clear error
CLEAR = (ValueError, OSError, CalculationFailed, PropertyNotImplementedError)
POLL_SECONDS = 0.005
OUTCOMES = {
    "error": "refused with a clear error",
    "same": "accepted, with the numbers of the undamaged input",
    "explained": "accepted, with other numbers for a reason that is by design",
    "changed": "accepted, with other numbers and no reason",
    "unclear": "an error of several lines, or without a message",
    "traceback": "an exception that is not meant for users",
    "crash": "the process was killed by a signal",
    "hang": "too much time or memory",
}
FAULTS = ("changed", "unclear", "traceback", "crash", "hang")


class Refused(Exception):
    """The command refused its input with an error; the text is what it wrote."""


class Case(NamedTuple):
    """One damaged input, and the use of it.

    Attributes:
        what: description of the damage.
        act: function that uses the input, in the current folder; returns the numbers to compare.
        reference: name of the undamaged numbers; None if there is nothing to compare.
        why: reason why other numbers are right, or a function that looks for one. Default: other
            numbers are a fault.
    """

    what: str
    act: Callable[[], Any]
    reference: str | None = None
    why: str | Callable[[], str] = ""


class Kind(NamedTuple):
    """Kind of input.

    Attributes:
        name: name on the command line.
        prepare: function that writes undamaged inputs to a folder; returns their numbers by name.
        case: function that makes a case from a random generator and that folder, in the current
            folder, which is empty.
        share: number of cases, relative to the other kinds.
        seconds: CPU time of a case; more is a hang.
    """

    name: str
    prepare: Callable[[Path], Mapping[str, Any]]
    case: Callable[[np.random.Generator, Path], Case]
    share: float = 1.0
    seconds: int = CPU_SECONDS


class Result(NamedTuple):
    """Outcome of one case."""

    kind: str
    number: int
    outcome: str  # a key of OUTCOMES
    what: str
    text: str  # error message or exception
    seconds: float


def command(*words: object) -> int:
    """Run ``train-potential``; returns its exit status.

    Raises:
        Refused: the status is 2; the text is the error message.
    """
    with seekable_stderr():
        end = os.lseek(2, 0, os.SEEK_CUR)
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
        sys.stderr.flush()
        if status == 2:
            raise Refused(os.pread(2, 100_000, end).decode("utf-8", "replace"))
    return status


@contextmanager
def seekable_stderr() -> Iterator[None]:
    """Let stderr be a file from which messages can be read; a pipe gets them at the end."""
    try:
        os.lseek(2, 0, os.SEEK_CUR)
    except OSError:
        pass
    else:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            sys.stderr.write(file.read().decode("utf-8", "replace"))


def run_cases(
    tasks: Iterable[tuple[Kind, int]], seed: int, samples: Path, parallel: int
) -> Iterator[Result]:
    """Results in the order in which the cases end.

    Args:
        tasks: kinds and numbers of the cases.
        seed: seed; seed, kind and number determine a case.
        samples: folder in which `prepare` has written the undamaged inputs of each kind.
        parallel: number of cases at a time.
    """
    gc.collect()
    gc.freeze()  # the pages of these objects stay shared with the children
    waiting, running = iter(tasks), {}
    try:
        while True:
            while len(running) < parallel and (task := next(waiting, None)) is not None:
                started = _start(*task, seed, samples)
                running[started.pid] = started
            if not running:
                return
            ended = [each for each in running.values() if each.ended()]
            for each in ended:
                del running[each.pid]
                yield each.result()
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for each in running.values():
            each.kill()
            each.result()


def prepare(kind: Kind, samples: Path) -> None:
    """Write the undamaged inputs of a kind and their numbers to a folder, in another process."""
    folder = samples / kind.name
    folder.mkdir(parents=True)

    def work() -> None:
        numbers = kind.prepare(folder)
        (folder / "references.json").write_text(json.dumps(numbers), encoding="utf-8")

    pid = os.fork()
    if pid == 0:
        _in_child(folder, work)
    if os.waitpid(pid, 0)[1]:
        log = (folder / "output").read_text("utf-8", "replace")[-3000:]
        raise RuntimeError(f"the inputs of {kind.name} cannot be prepared:\n{log}")


def replay(kind: Kind, number: int, seed: int, samples: Path) -> None:
    """Run one case in this process and in the current folder, with its output and traceback."""
    case = kind.case(generator(kind, number, seed), samples / kind.name)
    sys.stderr.write(f"{case.what}\n")
    numbers = case.act()
    sys.stderr.write(f"accepted: {numbers}\n")


def generator(kind: Kind, number: int, seed: int) -> np.random.Generator:
    """Random numbers of a case."""
    return np.random.default_rng([seed, number, *kind.name.encode()])


class _Running:
    """A case in progress."""

    def __init__(self, kind: Kind, number: int, pid: int, folder: Path) -> None:
        self.kind, self.number, self.pid, self.folder = kind, number, pid, folder
        self.start, self.late, self.status, self.cpu = time.monotonic(), False, 0, 0.0

    def ended(self) -> bool:
        """Whether the case has ended; ends it if it takes too long."""
        if time.monotonic() - self.start > WALL_SECONDS and not self.late:
            self.late = True
            self.kill()
        state = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return state is not None

    def kill(self) -> None:
        """End the case and its processes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def result(self) -> Result:
        """The outcome; removes the folder."""
        self.kill()  # what the case left behind
        _, status, usage = os.wait4(self.pid, 0)
        seconds = usage.ru_utime + usage.ru_stime
        saved = self.folder / "outcome.json"
        what, outcome, text = "?", "crash", ""
        if saved.exists():
            what, outcome, text = json.loads(saved.read_text("utf-8"))
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in (signal.SIGXCPU, signal.SIGKILL) and outcome == "crash":
            outcome, text = "hang", f"after {seconds:.0f} s of CPU time; {text}"
        elif number and outcome == "crash":
            text = f"{signal.Signals(number).name}; {text}"
        elif outcome == "crash":
            text = f"the process ended by itself with {os.WEXITSTATUS(status)}"
        shutil.rmtree(self.folder, ignore_errors=True)
        return Result(self.kind.name, self.number, outcome, what, text, round(seconds, 2))


def _start(kind: Kind, number: int, seed: int, samples: Path) -> _Running:
    """Start a case."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    pid = os.fork()
    if pid == 0:
        _in_child(folder, lambda: _case(kind, number, seed, samples / kind.name, folder))
    return _Running(kind, number, pid, folder)


def _in_child(folder: Path, work: Callable[[], None]) -> None:
    """Do the work in a forked process, which ends; its output goes to a file."""
    status = 1
    try:
        os.setsid()
        output = os.open(folder / "output", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        inside = folder / "work"
        inside.mkdir()
        os.chdir(inside)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _case(kind: Kind, number: int, seed: int, samples: Path, folder: Path) -> None:
    """Run a case and save its outcome."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (kind.seconds, kind.seconds + 5))
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    saved = folder / "outcome.json"
    try:
        case = kind.case(generator(kind, number, seed), samples)
    except Exception:
        saved.write_text(json.dumps(["the harness", "traceback", traceback.format_exc()[-1500:]]))
        return
    saved.write_text(json.dumps([case.what, "crash", ""]), encoding="utf-8")
    outcome, text = _outcome(case, samples)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if "Traceback (most recent call last)" in _written():
        outcome, text = "traceback", f"{text}; {_written()[-1500:]}"
    saved.write_text(json.dumps([case.what, outcome, text]), encoding="utf-8")


def _written() -> str:
    """What this process has written to its streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    return os.pread(2, 1_000_000, 0).decode("utf-8", "replace")


def _outcome(case: Case, samples: Path) -> tuple[str, str]:
    """Use the input; returns the outcome and a text about it."""
    try:
        numbers = case.act()
    except Refused as error:
        return _clear(str(error).rpartition("train-potential: ")[2])  # without progress lines
    except (*CLEAR, Exception) as error:
        if type(error) is UnicodeDecodeError or not isinstance(error, CLEAR):
            return "traceback", _where(error)
        return _clear(str(error))
    if case.reference is None:
        return "same", ""
    expected = json.loads((samples / "references.json").read_text("utf-8"))[case.reference]
    difference = _difference(json.loads(json.dumps(numbers)), expected)
    if not difference:
        return "same", ""
    why = case.why if isinstance(case.why, str) else case.why()
    return ("explained" if why else "changed"), f"{why or 'unexplained'}: {difference}"


def _clear(text: str) -> tuple[str, str]:
    """Whether an error message is one sentence for a user."""
    text = text.strip()
    if text.startswith("there is not enough memory"):
        return "hang", text
    good = bool(text) and "\n" not in text and len(text) <= LONGEST
    return ("error" if good else "unclear"), text[:2000]


def _where(error: BaseException) -> str:
    """The exception and the last places of this repository in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not re.search(r"site-packages|faults|lib/python", f.filename)]
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in own[:-4:-1])
    return f"{type(error).__name__}: {error}"[:600] + f" [{places}]"


def _difference(found: Any, expected: Any, path: str = "") -> str:
    """First difference of two nested values; empty if they are equal within rounding."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if key not in found or key not in expected:
                return f"{path}.{key} in one only"
            if text := _difference(found[key], expected[key], f"{path}.{key}"):
                return text
        return ""
    if isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return f"{path} has {len(found)} values, not {len(expected)}"
        pairs = enumerate(zip(found, expected, strict=True))
        return next((t for i, (a, b) in pairs if (t := _difference(a, b, f"{path}[{i}]"))), "")
    if isinstance(found, (int, float)) and isinstance(expected, (int, float)):
        if math.isnan(found) and math.isnan(expected):
            return ""
        if math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-8):
            return ""
    elif found == expected:
        return ""
    return f"{path} is {found!r}, not {expected!r}"[:300]
