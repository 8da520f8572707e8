"""Worker processes: timing in turn, errors, and death."""

import pytest

from benchmarks.serve import time_calls
from benchmarks.workers import Job, Specification, Timing, interleave, workers

FAKE = """
import os

class Subject:
    info = {"weights": 3}

    def work(self, steps=1):
        return (lambda: None), lambda: {"steps": steps}

    def fail(self):
        raise RuntimeError("no such thing")

    def die(self):
        return (lambda: None), lambda: os._exit(3)

def make(**arguments):
    return Subject(**arguments)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_subject.py").write_text(FAKE)

    def specify(name, **arguments):
        return Specification(
            name=name,
            factory="fake_subject:make",
            arguments=arguments,
            torch=False,
            variables={"PYTHONPATH": str(tmp_path)},
        )

    return specify


def test_calls_are_counted_per_step():
    answer = time_calls(((lambda: None), lambda: {"steps": 4}), seconds=0.01)
    assert len(answer["wall"]) == len(answer["cpu"]) >= 1
    assert sum(answer["wall"]) < 0.01
    assert answer["peak_mb"] > 1


def test_workers_are_timed_in_turn(fake, tmp_path):
    order = []
    with workers([fake("a"), fake("b")], tmp_path) as started:
        assert [worker.info for worker in started] == [{"weights": 3}] * 2
        jobs = [Job("work", "work", {"steps": 2}), Job("fail", "fail")]
        timings = interleave(
            started, jobs, rounds=2, warmup=1, seconds=0.0, advance=lambda name: order.append(name)
        )
    assert order == ["a", "a", "b", "b"] * 3
    assert timings["a", "work"].summary()["calls"] == 2
    assert "no such thing" in timings["b", "fail"].summary()["error"]
    assert all(worker.process.returncode == 0 for worker in started)


def test_a_worker_that_dies_is_reported(fake, tmp_path):
    with workers([fake("a")], tmp_path) as started:
        assert "status 3" in started[0].call(Job("die", "die"), 0.0)["error"]
        assert "status 3" in started[0].call(Job("work", "work"), 0.0)["error"]


def test_workers_that_cannot_start_end_the_run(fake, tmp_path):
    with pytest.raises(SystemExit, match="TypeError"), workers([fake("a", size=3)], tmp_path):
        pass


def test_nothing_measured_is_an_error():
    assert "error" in Timing().summary()
