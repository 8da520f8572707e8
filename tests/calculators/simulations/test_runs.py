"""`relax` and `md` as users run them: many structures, failures, interruptions; and in Python."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from tesseral.calculators.simulations.dynamics import MdConfig
from tesseral.calculators.simulations.folder import RunFolder
from tesseral.calculators.simulations.frames import readable_frames
from tesseral.calculators.simulations.relaxation import RelaxConfig
from tesseral.calculators.simulations.runs import Progress, relax_structures, run_dynamics
from tesseral.commands.main import main

OUTPUTS = ("summary.csv", "relaxed.extxyz", "structures")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    stable_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs `train-potential` with the stable model; its status and what it wrote."""

    def call(*words: object, model: Path = stable_model) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "120")
        status = main([*map(str, words), "--model", str(model)])
        written = capsys.readouterr()
        return status, written.out, written.err

    return call


@pytest.fixture
def folder(crystal: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder: two.extxyz (SiC twice), si.cif, germanium.cif and broken.cif."""
    monkeypatch.chdir(tmp_path)
    second = crystal.copy()
    second.rattle(0.03, seed=5)
    ase.io.write("two.extxyz", [crystal, second])
    silicon = bulk("Si", a=5.85)
    silicon.rattle(0.05, seed=1)
    silicon.write("si.cif")
    bulk("Ge").write("germanium.cif")
    Path("broken.cif").write_text("nothing")
    return tmp_path


def summary(path: Path) -> dict[str, dict[str, str]]:
    """Lines of the summary by name."""
    with (path / "summary.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_all_structures_are_relaxed_and_those_that_fail_are_told(
    folder: Path, command: Command
) -> None:
    status, text, _ = command(
        "relax", "germanium.cif", "two.extxyz", "broken.cif", "si.cif", "--fmax", 0.05
    )
    rows = summary(folder / "relax")
    assert status == 1 and "3 of 5 structures converged" in text
    assert list(rows) == ["germanium", "two-0", "two-1", "broken", "si"]
    outcomes = [row["outcome"] for row in rows.values()]
    assert outcomes == ["failed", "converged", "converged", "failed", "converged"]
    assert "element Ge is not one of those the model supports: C, Si" in text
    assert "cannot be read" in rows["broken"]["reason"] and rows["broken"]["formula"] == ""
    assert rows["two-1"]["file"] == "two.extxyz" and rows["two-1"]["frame"] == "1"
    atoms = ase.io.read(folder / "relax/relaxed.extxyz", index=":")
    assert [one.info["name"] for one in atoms] == ["two-0", "two-1", "si"]
    assert [one.info["frame"] for one in atoms] == [0, 1, 0]
    assert float(rows["si"]["energy_eV_atom"]) == pytest.approx(atoms[2].get_potential_energy() / 2)


def test_names_of_vasp_do_not_confuse(folder: Path, command: Command) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
        bulk("Si", a=5.85).write(f"{name}/POSCAR", format="vasp")
    status, text, _ = command("relax", "a/POSCAR", "b/POSCAR", "--steps", 1, "--fmax", 9)
    assert status == 0 and "2 of 2 structures converged" in text
    assert len(ase.io.read("relax/relaxed.extxyz", index=":")) == 2
    assert command("relax", "b/POSCAR", "--steps", 1, "--fmax", 9)[0] == 0
    assert (folder / "POSCAR-relax/structures/POSCAR.traj").is_file()


def test_what_is_done_is_not_done_again(folder: Path, command: Command) -> None:
    words = ("relax", "two.extxyz", "germanium.cif", "--fmax", 0.1, "-o", "out")
    command(*words)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out/structures").iterdir()}
    rows = summary(folder / "out")
    status, text, _ = command(*words)
    assert status == 1 and "2 of 3 structures are already done" in text
    assert before == {
        path: path.stat().st_mtime_ns for path in (folder / "out/structures").iterdir()
    }
    assert summary(folder / "out") == rows


def test_a_summary_that_was_cut_off_loses_only_its_last_line(
    folder: Path, command: Command
) -> None:
    words = ("relax", "two.extxyz", "--fmax", 0.1)
    command(*words)
    path = folder / "two-relax/summary.csv"
    whole = path.read_text()
    path.write_text(whole[:-4])
    status, text, _ = command(*words)
    assert status == 0 and "1 of 2 structures are already done" in text
    assert path.read_text() == whole


def test_more_steps_are_for_those_that_did_not_converge(folder: Path, command: Command) -> None:
    words = ("relax", "two.extxyz", "si.cif", "--steps")
    status, text, _ = command(*words, 12)
    first = summary(folder / "relax")
    assert status == 1 and "--steps was not enough" in text
    assert [row["outcome"] for row in first.values()].count("not converged") == 2
    status, text, _ = command(*words, 200)
    assert status == 0 and "3 of 3 structures converged" in text
    assert summary(folder / "relax")["si"] == first["si"]


REFUSED = [
    (("--fmax", "0.2"), "was made with --fmax 0.1, not 0.2"),
    (("--fmax", "0.1", "--repeat", "1", "1", "2"), "was made with --repeat [1, 1, 1]"),
    (("si.cif", "--fmax", "0.1"), "from other structures (not the same: si)"),
]


@pytest.mark.parametrize(("more", "message"), REFUSED)
def test_a_folder_of_other_settings_or_structures_is_refused(
    more: tuple[str, ...], message: str, folder: Path, command: Command
) -> None:
    command("relax", "two.extxyz", "--fmax", 0.1, "--steps", 1, "-o", "out")
    before = (folder / "out/summary.csv").read_text()
    status, _, text = command("relax", "two.extxyz", *more, "--steps", 1, "-o", "out")
    assert status == 2 and message in text and text.count("\n") == 1
    assert (folder / "out/summary.csv").read_text() == before


def test_a_folder_of_another_model_command_or_changed_file_is_refused(
    folder: Path, command: Command, small_model: Path, crystal: Atoms
) -> None:
    words = ("two.extxyz", "-o", "out")
    command("relax", *words, "--steps", 1)
    assert "with another model" in command("relax", *words, model=small_model)[2]
    assert "holds results of train-potential relax" in command("md", *words)[2]
    ase.io.write("two.extxyz", [crystal, crystal])
    assert "(not the same: two-1)" in command("relax", *words)[2]


def test_a_folder_with_other_files_and_one_in_use_are_refused(
    folder: Path, command: Command
) -> None:
    status, _, text = command("relax", "si.cif", "-o", ".")
    assert status == 2 and "exists and holds no results" in text
    words = ("relax", "si.cif", "--steps", 1, "-o", "busy")
    command(*words)
    identity = json.loads((folder / "busy/run.json").read_text())
    with closing(RunFolder(folder / "busy", identity, ["name"])):
        status, _, text = command(*words)
    assert status == 2 and "another process writes to busy" in text


def test_missing_files_are_refused_before_anything_is_done(folder: Path, command: Command) -> None:
    status, _, text = command("relax", "si.cif", "silicon.cif")
    assert status == 2 and "there is no structure file silicon.cif" in text
    status, _, text = command("md", "si.cif", model=folder / "no.safetensors")
    assert status == 2 and "there is no model file" in text
    assert not list(folder.glob("*/run.json"))


def test_md_of_all_structures_and_one_that_explodes(folder: Path, command: Command) -> None:
    close = bulk("Si", a=2.6)
    close.write("close.cif")
    words = ("md", "two.extxyz", "close.cif", "--ensemble", "nve", "--equilibrate", 0)
    status, text, _ = command(*words, "--time", 0.02, "--every", 2, "--temperature", 50)
    rows = summary(folder / "md")
    print(rows)
    assert status == 1 and "2 of 3 structures done" in text
    assert rows["close"]["outcome"] == "failed" and "MD ended at step" in rows["close"]["reason"]
    assert abs(float(rows["two-0"]["drift_meV_atom"])) < 1
    assert rows["two-1"]["steps"] == "20"
    assert len(list(readable_frames(folder / "md/structures/two-1.traj"))) == 11


@pytest.mark.slow
def test_several_processes_give_the_same(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ("relax", "germanium.cif", "two.extxyz", "--fmax", 0.1, "--dtype", "float64")
    status, text, _ = command(*words, "-o", "two", "--processes", 2)
    assert status == 1 and "2 of 3 structures converged" in text
    command(*words, "-o", "one")
    two, one = summary(folder / "two"), summary(folder / "one")
    assert list(two) == list(one)
    for name, row in two.items():
        assert to_numbers(row) == pytest.approx(to_numbers(one[name]), rel=1e-6, abs=1e-6)
        assert {key: row[key] for key in WORDS} == {key: one[name][key] for key in WORDS}


EXECUTORS = """
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

def processes():
    return ProcessPoolExecutor(2, get_context("spawn"))

def threads():
    return ThreadPoolExecutor(2)

def lossy():
    made = ThreadPoolExecutor(1)
    submit, lost = made.submit, Future()
    lost.set_exception(BrokenProcessPool("a worker was killed"))
    made.submit = lambda *task: submit(*task) if made._threads else (submit(int), lost)[1]
    return made
"""


def test_structures_that_an_executor_loses_are_computed_when_it_is_resumed(
    folder: Path, command: Command
) -> None:
    Path("mine.py").write_text(EXECUTORS)
    words = ("relax", "two.extxyz", "si.cif", "--fmax", 0.1, "-o", "out", "--executor")
    status, _, error = command(*words, "mine.py:lossy")
    assert status == 2 and "the executor lost structures: BrokenProcessPool: a worker was" in error
    assert list(summary(folder / "out")) == ["two-1", "si"]
    status, text, _ = command(*words, "mine.py:threads")
    assert status == 0 and "2 of 3 structures are already done" in text
    assert list(summary(folder / "out")) == ["two-0", "two-1", "si"]


def test_an_executor_has_its_own_number_of_workers(folder: Path, command: Command) -> None:
    status, _, error = command("relax", "si.cif", "--executor", "mine.py:threads", "--processes", 2)
    assert status == 2 and "--processes is 2, but --executor is given" in error


@pytest.mark.slow
def test_workers_of_an_executor_give_the_same(folder: Path, command: Command) -> None:
    Path("mine.py").write_text(EXECUTORS)
    words = ("relax", "two.extxyz", "--fmax", 0.1, "--dtype", "float64")
    assert command(*words, "-o", "here")[0] == 0
    assert command(*words, "-o", "there", "--executor", "mine.py:processes")[0] == 0
    here, there = summary(folder / "here"), summary(folder / "there")
    for name, row in here.items():
        assert to_numbers(row) == pytest.approx(to_numbers(there[name]), rel=1e-6, abs=1e-6)


DASK = """
import os

def workers():
    from dask.distributed import Client

    client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with open("pids", "w") as file:
        print(*client.run(os.getpid).values(), file=file, flush=True)
    return client.get_executor()
"""


@pytest.mark.slow
def test_a_killed_worker_of_dask_loses_nothing(
    folder: Path, command: Command, stable_model: Path
) -> None:
    pytest.importorskip("distributed", reason="needs dask.distributed")
    Path("mine.py").write_text(DASK)
    words = ["md", "two.extxyz", "--time", "0.3", "--every", "1", "--dtype", "float64"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tesseral.commands.main", *words, "-o", "there"]
        + ["--model", str(stable_model), "--executor", "mine.py:workers"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    trajectory = folder / "there/structures/two-0.traj"
    give_up = time.monotonic() + 120
    while not (trajectory.exists() and trajectory.stat().st_size > 10_000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    for pid in Path("pids").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "2 of 2 structures done" in text, text
    command(*words, "-o", "here")
    for name in ("two-0", "two-1"):
        whole, parts = (
            list(readable_frames(folder / f"{run}/structures/{name}.traj"))
            for run in ("here", "there")
        )
        assert len(parts) == len(whole) == 301
        assert np.abs(parts[-1].positions - whole[-1].positions).max() < 1e-6


def test_dispersion_is_part_of_the_run(folder: Path, command: Command) -> None:
    pytest.importorskip("dftd3", reason="needs dftd3")
    words = ("relax", "si.cif", "--steps", 1, "--dispersion-cutoff", 9)
    status, out, err = command(*words, "--dispersion", "PBE")
    assert status == 1 and not err
    assert "level of theory: D3(BJ, pbe, 9 Å)" in out
    summary = Path("si-relax/summary.csv").read_text(encoding="utf-8")
    (row,) = csv.DictReader(summary.splitlines())
    assert row["theory"] == "D3(BJ, pbe, 9 Å)"
    assert ase.io.read("si-relax/relaxed.extxyz").info["theory"] == row["theory"]
    status, out, err = command(*words, "--dispersion", "pbe")  # resumes
    assert status == 1 and not err
    assert command(*words, "--dispersion", "pbesol")[2] == (
        "train-potential: si-relax was made with --dispersion pbe, not pbesol; give another folder "
        "as --output, or the same as before\n"
    )
    status, out, err = command(*words, "--dispersion")
    assert status == 2 and "name the functional, like --dispersion pbe" in err


WORDS = ("file", "frame", "formula", "outcome", "reason", "space_group", "kept_cell")


def to_numbers(row: dict[str, str]) -> dict[str, float]:
    """The columns of a line of the summary that are numbers."""
    return {key: float(word) for key, word in row.items() if key not in (*WORDS, "name") and word}


KILLS = [
    ("relax", ["--cell", "fixed", "--fmax", "1e-9", "--steps", "200"], signal.SIGINT, 130),
    ("md", ["--time", "0.2", "--every", "1"], signal.SIGKILL, -signal.SIGKILL),
]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "options", "number", "status"), KILLS, ids=["ctrl-c", "kill"])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    verb: str,
    options: list[str],
    number: signal.Signals,
    status: int,
    folder: Path,
    command: Command,
    stable_model: Path,
) -> None:
    words = [verb, "two.extxyz", "--dtype", "float64", *options]
    command(*words, "-o", "whole")
    trajectory = folder / "parts/structures/two-0.traj"
    process = subprocess.Popen(
        [sys.executable, "-m", "tesseral.commands.main", *words, "-o", "parts"]
        + ["--model", str(stable_model)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up = time.monotonic() + 60
    while not (trajectory.exists() and trajectory.stat().st_size > 30_000):
        assert time.monotonic() < give_up and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    if number == signal.SIGINT:
        assert re.search("stopped by Ctrl-C after [01] of 2 structures; the same command", error)
        assert "Traceback" not in error
    left = len(list(readable_frames(trajectory)))
    command(*words, "-o", "parts")
    for name in ("two-0", "two-1"):
        whole, parts = (
            list(readable_frames(folder / f"{run}/structures/{name}.traj"))
            for run in ("whole", "parts")
        )
        apart = np.abs(parts[-1].positions - whole[-1].positions).max()
        print(f"{left} frames left, {name}: {apart:.1e} Å apart")
        assert 2 < left <= len(parts) == len(whole) and apart < 1e-6


def test_library_runs_in_silence_and_returns_the_summary(
    folder: Path, stable_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Progress] = []
    config = RelaxConfig(
        structures=["si.cif", "germanium.cif"], model=str(stable_model), output="out", fmax=0.05
    )
    result = relax_structures(config, seen.append)
    assert capsys.readouterr() == ("", "")
    assert [row["name"] for row in result.rows] == ["si", "germanium"]
    assert result.rows == list(summary(folder / "out").values())
    assert [row["name"] for row in result.bad] == ["germanium"]
    assert result.written == [Path("out", name) for name in OUTPUTS]
    assert seen[0] == Progress(0, 2) and seen[1] == Progress(0, 2, "si")
    steps = int(result.rows[0]["steps"])
    assert [state.step for state in seen if state.text] == list(range(steps + 1))
    ends = [state for state in seen if state.outcome]
    assert ends == [
        Progress(1, 2, "si", outcome="converged"),
        Progress(2, 2, "germanium", outcome="failed"),
    ]
    assert relax_structures(config).rows == result.rows


def test_dynamics_without_a_screen(folder: Path, stable_model: Path) -> None:
    config = MdConfig(structures=["si.cif"], model=str(stable_model), output="out", time=0.005)
    result = run_dynamics(config)
    assert not result.bad and result.rows[0]["steps"] == "5" and result.good == "done"


def test_a_crystal_without_periodic_directions_is_named(command: Command, folder: Path) -> None:
    lost = bulk("SiC", "zincblende", a=4.4, cubic=True)
    lost.pbc = False
    ase.io.write("lost.extxyz", lost)
    _, out, _ = command("relax", "lost.extxyz", "two.extxyz", "--steps", 1, "-o", "out")
    assert "note: lost: filled cell without periodic directions" in out
