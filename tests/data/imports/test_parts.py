"""Imports in parts: the result of several processes, and of going on after an interruption."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from tesseral.data.imports import parts
from tesseral.data.imports.folder import PartFolder, load_report, save_report
from tesseral.data.imports.importer import ImportConfig, import_structures
from tesseral.data.imports.report import ImportReport
from tesseral.data.sources.extxyz import open_frames, split_frames
from tesseral.data.sources.search import find_sources
from tesseral.data.store.read import open_store

SCRIPT = """
import sys
from tesseral.data.imports import parts
from tesseral.data.imports.importer import ImportConfig, import_structures
parts.TASK_BYTES = 4_000
import_structures(ImportConfig(sources=[sys.argv[1]], output=sys.argv[2], processes=1))
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """An extxyz file of 500 frames of 2 to 5 atoms, some with a stress."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("frames") / "a.extxyz"
    with path.open("w") as file:
        for i in range(500):
            n = 2 + i % 4
            stress = ' stress="0.1 0 0 0 0.2 0 0 0 0.3"' if i % 3 else ""
            file.write(
                f'{n}\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 '
                f"energy={-i} config_type=t{i % 5} group=g{i // 10}{stress}\n"
            )
            for row in rng.normal(size=(n, 6)):
                file.write("Si " + " ".join(f"{x:.6f}" for x in row) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(frames, tmp_path_factory):
    """The frames imported at once: report and bytes."""
    output = tmp_path_factory.mktemp("whole") / "a.h5"
    report = import_structures(ImportConfig(sources=[str(frames)], output=str(output), processes=1))
    assert report.structures == 500
    return report, output.read_bytes()


@pytest.fixture
def small_tasks(monkeypatch):
    monkeypatch.setattr(parts, "TASK_BYTES", 4_000)
    monkeypatch.setattr(parts, "PART_STRUCTURES", 30)


def test_frames_are_found_without_reading_them(frames):
    pieces = split_frames(frames, 10_000)
    text = "".join(open_frames(frames, piece).read() for piece in pieces)
    print(len(pieces), "pieces")
    assert len(pieces) > 5
    assert text == frames.read_text()
    firsts = [piece.first for piece in pieces]
    assert open_frames(frames, pieces[3]).read().startswith(f"{2 + firsts[3] % 4}\n")


@pytest.mark.parametrize("text", ["2\n\nH 0 0 0\nH 0 0 1\nVEC1 1 0 0\n", "2\n\nH 0 0 0\n", "x"])
def test_other_files_are_not_divided(tmp_path, text):
    (tmp_path / "a.extxyz").write_text(text)
    assert split_frames(tmp_path / "a.extxyz", 1) is None


def test_blank_lines_at_the_end_are_passed(tmp_path):
    (tmp_path / "a.extxyz").write_text("1\n\nH 0 0 0\n\n\n")
    assert split_frames(tmp_path / "a.extxyz", 1) == [(0, 0, 11, 1)]


@pytest.mark.slow
def test_several_processes_give_the_same_file(frames, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "TASK_BYTES", 40_000)
    output = tmp_path / "b.h5"
    seen = []
    report = import_structures(
        ImportConfig(sources=[str(frames)], output=str(output), processes=2),
        lambda *state: seen.append(state),
    )
    assert output.read_bytes() == whole[1]
    assert report.rows() == whole[0].rows()
    assert ("reading", 500, 1.0) in seen
    assert list(tmp_path.iterdir()) == [output]


EXECUTORS = """
import os
from concurrent.futures import Executor, Future

class Elsewhere(Executor):
    lose = 0
    count = 0

    def submit(self, function, *task):
        future, before = Future(), os.getcwd()
        self.count += 1
        os.chdir("/")
        try:
            if self.count == self.lose:
                raise RuntimeError("a worker was killed")
            future.set_result(function(*task))
        except Exception as error:
            future.set_exception(error)
        os.chdir(before)
        return future

def workers():
    return Elsewhere()

def lossy():
    made = Elsewhere()
    made.lose = 3
    return made

def dask():
    from dask.distributed import Client

    client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with open("pids", "w") as file:
        print(*client.run(os.getpid).values(), file=file, flush=True)
    return client.get_executor()
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Working folder with a file of functions that return executors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.py").write_text(EXECUTORS)
    return tmp_path


def test_workers_in_another_folder_give_the_same_file(frames, whole, site, small_tasks):
    (site / "a.extxyz").write_bytes(frames.read_bytes())
    config = ImportConfig(sources=["a.extxyz"], output="b.h5", executor="site.py:workers")
    report = import_structures(config)
    assert (site / "b.h5").read_bytes() == whole[1]
    assert report.rows() == whole[0].rows()


def test_what_an_executor_loses_is_read_when_it_is_resumed(frames, whole, site, small_tasks):
    config = ImportConfig(sources=[str(frames)], output="b.h5", executor="site.py:lossy")
    with pytest.raises(ChildProcessError, match="executor lost structures: RuntimeError"):
        import_structures(config)
    seen = []
    config = replace(config, executor=None, processes=1)
    import_structures(config, lambda *state: seen.append(state[1]))
    print("parts of an earlier import:", seen[0])
    assert 450 < seen[0] < 500
    assert (site / "b.h5").read_bytes() == whole[1]


def test_an_executor_passes_on_the_errors_of_files(frames, site, small_tasks):
    (site / "a.extxyz").write_text(frames.read_text().replace("energy=-321 ", ""))
    config = ImportConfig(sources=["a.extxyz"], output="b.h5", executor="site.py:workers")
    with pytest.raises(ValueError, match="have no energy: .*a.extxyz frame 321"):
        import_structures(config)
    assert not (site / ".b.h5.import").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_of_dask_loses_nothing(frames, whole, site, monkeypatch, own_environment):
    pytest.importorskip("distributed", reason="needs dask.distributed")
    monkeypatch.setattr(parts, "TASK_BYTES", 4_000)
    killed = []

    def kill(doing, structures, fraction):
        if structures > 100 and not killed:
            killed.append(int((site / "pids").read_text().split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    config = ImportConfig(sources=[str(frames)], output="b.h5", executor="site.py:dask")
    import_structures(config, kill)
    assert len(killed) == 1
    assert (site / "b.h5").read_bytes() == whole[1]


def test_parts_give_the_same_file_and_report(frames, whole, tmp_path, small_tasks):
    output = tmp_path / "b.h5"
    report = import_structures(ImportConfig(sources=[str(frames)], output=str(output), processes=1))
    assert output.read_bytes() == whole[1]
    assert report.rows() == whole[0].rows()
    assert report.warnings == whole[0].warnings
    assert any("167 of 500 periodic structures have no stress" in text for text in report.warnings)


@pytest.mark.parametrize("split", [True, False], ids=["in pieces", "from the beginning"])
def test_an_interrupted_import_goes_on(frames, whole, tmp_path, small_tasks, monkeypatch, split):
    if not split:
        monkeypatch.setattr("tesseral.data.imports.importer.split_frames", lambda path, size: None)
    output = tmp_path / "b.h5"
    config = ImportConfig(sources=[str(frames)], output=str(output), processes=1)

    def stop(doing, structures, fraction):
        if structures > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_structures(config, stop)
    assert not output.exists()
    seen = []
    import_structures(config, lambda *state: seen.append(state[1]))
    print("parts of an earlier import:", seen[0])
    assert 200 < seen[0] < 300
    assert output.read_bytes() == whole[1]
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.slow
def test_a_killed_import_goes_on(frames, whole, tmp_path, small_tasks):
    output = tmp_path / "b.h5"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(frames), str(output)])
    hidden = tmp_path / ".b.h5.import"
    while process.poll() is None and len(list(hidden.glob("*/*.json"))) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(hidden.glob("*/*.json")))
    print(kept, "parts were complete")
    assert kept >= 5 and not output.exists()
    seen = []
    config = ImportConfig(sources=[str(frames)], output=str(output), processes=1)
    import_structures(config, lambda *state: seen.append(state[1]))
    assert seen[0] > 0
    assert output.read_bytes() == whole[1]


@pytest.mark.parametrize("change", ["options", "source"])
def test_other_options_or_files_start_anew(frames, tmp_path, small_tasks, change):
    source, output = tmp_path / "a.extxyz", tmp_path / "b.h5"
    source.write_bytes(frames.read_bytes())
    config = ImportConfig(sources=[str(source)], output=str(output), processes=1)

    def stop(doing, structures, fraction):
        if structures > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_structures(config, stop)
    theory = "PBE" if change == "options" else ""
    if change == "source":
        os.utime(source, (0, 0))
    config = ImportConfig(sources=[str(source)], output=str(output), processes=1, theory=theory)
    seen = []
    import_structures(config, lambda *state: seen.append(state[1]))
    assert seen[0] == 0
    assert set(open_store(output).texts("theory")) == {theory}


def test_an_error_names_the_frame_of_the_whole_file(frames, tmp_path, small_tasks):
    lines = frames.read_text().splitlines()
    headers = [place for place, line in enumerate(lines) if line.startswith("Lattice")]
    lines[headers[321] + 1] = lines[headers[321] + 1].replace("Si ", "Si nan ").rsplit(" ", 1)[0]
    (tmp_path / "a.extxyz").write_text("\n".join(lines) + "\n")
    config = ImportConfig(sources=[str(tmp_path / "a.extxyz")], output=str(tmp_path / "b.h5"))
    with pytest.raises(ValueError, match="a.extxyz frame 321: the positions are not finite"):
        import_structures(config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.extxyz"]


def test_many_small_files_are_one_task(frames, tmp_path, whole):
    sources = []
    for number, piece in enumerate(split_frames(frames, 500)):
        sources.append(tmp_path / f"{number:03d}.extxyz")
        sources[-1].write_text(open_frames(frames, piece).read())
    tasks = parts.make_tasks(
        find_sources([str(source) for source in sources]), lambda path, size: None
    )
    assert len(sources) > 100 and len(tasks) == 1
    output = tmp_path / "b.h5"
    import_structures(ImportConfig(sources=[str(path) for path in sources], output=str(output)))
    store = open_store(output)
    assert len(store) == 500
    assert store.attributes["source"].endswith(f"099.extxyz, and {len(sources) - 100} more")


def test_a_report_survives_its_file(tmp_path, whole):
    report = ImportReport(output=whole[0].output, content_hash=whole[0].content_hash)
    for last in (False, True):  # with nothing in it, and with all
        save_report(tmp_path / "a.json", report, last)
        assert load_report(tmp_path / "a.json") == (report, last)
        if not last:
            report.merge(whole[0])
    assert report.rows() == whole[0].rows()


def test_parts_count_when_their_report_is_there(tmp_path):
    folder = PartFolder(tmp_path / "a.h5", {"theory": ""})
    (folder.path / "000000-000000.h5").touch()
    assert folder.structures() == 0 and folder.part(0, 0) is None
    save_report(folder.path / "000000-000000-12.json", ImportReport(), last=True)
    assert folder.structures() == 12 and folder.part(0, 0) is not None
    assert PartFolder(tmp_path / "a.h5", {"theory": ""}).structures() == 12
    assert PartFolder(tmp_path / "a.h5", {"theory": "PBE"}).structures() == 0


def test_a_part_with_a_damaged_report_is_read_again(tmp_path):
    folder = PartFolder(tmp_path / "a.h5", {})
    report = folder.path / "000000-000000-12.json"
    save_report(report, ImportReport(structures=12), last=True)
    report.write_bytes(report.read_bytes().replace(b'"structures": 12', b'"structures": 13'))
    assert folder.part(0, 0) is None and not report.exists()
