"""How the suite starts programs and reads what they write; the snippets are from real runs."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml

from benchmarks.accuracy import calculators, predict
from benchmarks.accuracy.curves import Point
from benchmarks.accuracy.process import Ended, Place, pinned, places, read_stamped, run_stamped
from benchmarks.accuracy.programs import LOG, Task, merge
from benchmarks.accuracy.programs.mace import Mace
from benchmarks.accuracy.programs.nequip import Nequip, duration
from benchmarks.accuracy.programs.ours import Ours, Taught
from benchmarks.accuracy.programs.sevennet import SevenNet
from benchmarks.accuracy.recipes import Recipe
from benchmarks.accuracy.structures import Files
from benchmarks.accuracy.train import train_epochs
from benchmarks.peers.environments import Peers

MACE_LOG = """\
6.761\t2026-11-21 14:53:21.123 INFO: Started training, reporting errors on validation set
7.810\t2026-11-21 14:53:22.172 INFO: Initial: head: Default, loss=20.15944481, \
RMSE_E_per_atom=   32.43 meV, RMSE_F= 1003.97 meV / A
10.070\t2026-11-21 14:53:24.432 INFO: Epoch 0: head: Default, loss=15.13545322, \
RMSE_E_per_atom=  268.39 meV, RMSE_F=  869.51 meV / A
12.173\t2026-11-21 14:53:26.535 INFO: Epoch 1: head: Default, loss=8.59228325, \
RMSE_E_per_atom=  614.30 meV, RMSE_F=  652.56 meV / A
14.130\t2026-11-21 14:53:28.492 INFO: Training complete
"""
MACE_RESULTS = """\
{"mae_e_per_atom": 0.03168, "mae_f": 0.74726, "mode": "eval", "epoch": null}
{"loss": 111.96630859375, "time": 0.2041635513305664, "mode": "opt", "epoch": 0}
{"mae_e_per_atom": 0.26, "mae_f": 0.65, "mode": "eval", "epoch": 0}
{"mae_e_per_atom": 0.61, "mae_f": 0.5, "mode": "eval", "epoch": 1}
{"loss": 8.59, "mae_e_per_at
"""
SEVENNET_LOG = """\
5.100\tNumber of parameters: 121981
5.200\tEpoch 1/5  lr: 0.005000
9.053\tvalidset              4.556337           0.742965    20.860942
9.060\tEpoch 1 elapsed: 0:00:03.79
9.070\tEpoch 2/5  lr: 0.004532
12.781\tvalidset              3.656522           0.748458    13.468774
12.792\tEpoch 2 elapsed: 0:00:03.73
"""
SEVENNET_TABLE = """\
epoch,lr,trainset_Energy_MAE,trainset_Force_MAE,trainset_TotalLoss,validset_Energy_MAE,validset_Force_MAE,validset_TotalLoss
1,0.005000,4.753711,0.777448,22.662832,4.556337,0.742965,20.860942
2,0.004532,4.250767,0.775497,18.084421,3.656522,0.748458,13.468774
"""
NEQUIP_LOG = """\
7.620\tclock: training begins
8.000\tsome warning
10.071\tclock: validation {"x": 1, "val0_epoch/per_atom_energy_mae": 0.12267, \
"val0_epoch/forces_mae": 1.14695}
12.431\tclock: validation {"x": 1, "val0_epoch/per_atom_energy_mae": 0.03904, \
"val0_epoch/forces_mae": 0.62087}
"""


@pytest.fixture
def peers(tmp_path):
    return Peers(tmp_path / "envs", tmp_path)


@pytest.fixture
def task(tmp_path):
    recipe = Recipe(name="X", train="a", validation=2, tests={"test": "b"}, minutes=1, stress=True)
    isolated = {"C": -1026.0, "H": -13.5}
    files = Files(tmp_path / "fit.xyz", tmp_path / "val.xyz", {}, {}, ("C", "H"), isolated, 8, 16)
    return Task(recipe, files, tmp_path, 10, 60.0, 78.0, ["--loss.forces", "mae"], 2, "cpu")


def assert_close(curve, expected):
    assert len(curve) == len(expected)
    np.testing.assert_allclose(curve, expected)


def test_curve_of_mace(tmp_path, peers):
    (tmp_path / "log.txt").write_text(MACE_LOG)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/mace_run-1_train.txt").write_text(MACE_RESULTS)
    curve = Mace(peers).curve(tmp_path)
    assert_close(curve, [Point(3.309, 1, 260.0, 650.0), Point(5.412, 2, 610.0, 500.0)])
    assert [Mace(peers).ends(line) for line in MACE_LOG.splitlines()] == [False] * 4 + [True]


def test_curve_of_sevennet(tmp_path, peers):
    (tmp_path / "log.txt").write_text(SEVENNET_LOG)
    assert SevenNet(peers).curve(tmp_path) == []
    (tmp_path / "lc.csv").write_text(SEVENNET_TABLE)
    curve = SevenNet(peers).curve(tmp_path)
    assert_close(curve, [Point(3.86, 1, 4556.337, 742.965), Point(7.592, 2, 3656.522, 748.458)])


def test_curve_of_nequip(tmp_path, peers):
    (tmp_path / "log.txt").write_text(NEQUIP_LOG)
    curve = Nequip(peers).curve(tmp_path)
    assert_close(curve, [Point(2.451, 1, 122.67, 1146.95), Point(4.811, 2, 39.04, 620.87)])


def test_commands_keep_the_same_data_and_fill_the_time(task, peers):
    words = Mace(peers).command(task)
    assert {"--loss=stress", "--start_stage_two=7", "--max_num_epochs=10"} <= set(words)
    assert "--E0s={6: -1026.0, 1: -13.5}" in words and words[-1] == "--stage_two"
    assert "--stage_two" not in Mace(peers).command(task._replace(epochs=2))
    settings = Nequip(peers).settings(task)
    assert settings["training_module"]["lr_scheduler"]["scheduler"]["T_max"] == 10
    assert settings["trainer"]["max_time"] == "00:00:01:18"
    assert settings["model_type_names"] == ["C", "H"]
    assert "stress" in settings["training_module"]["loss"]["coeffs"]
    assert duration(93784) == "01:02:03:04"
    train = SevenNet(peers).settings(task)["train"]
    assert train["is_train_stress"] and train["scheduler_param"]["T_max"] == 10
    words = Ours().command(task)
    given = yaml.safe_load((task.folder / "fit.yaml").read_text())
    assert given["trainer"]["max_time"] == "60s"
    assert (given["seed"], given["data"]["seed"], given["trainer"]["clock"]) == (2, 2, "cpu")
    assert given["data"]["isolated_energies"] == task.files.isolated
    assert words[-2:] == ["--loss.forces", "mae"]


def test_a_stopped_mace_is_made_a_model_of_its_stage(task, peers):
    mace, checkpoints = Mace(peers), task.folder / "checkpoints"
    assert mace.rescue(task)[-2:] == ["--restart_latest", "--max_num_epochs=0"]
    (task.folder / "mace.model").touch()
    assert mace.rescue(task) is None
    checkpoints.mkdir()
    (checkpoints / "mace_run-1_epoch-8_swa.pt").touch()
    assert mace.rescue(task)[-2:] == ["--start_stage_two=0", "--max_num_epochs=1"]
    assert mace.model(task.folder).name == "mace.model"
    (task.folder / "mace_stagetwo.model").touch()
    assert mace.rescue(task) is None
    assert mace.model(task.folder).name == "mace_stagetwo.model"


def test_recipes_change_the_settings_of_peers(task, peers):
    changed = {"MACE": {"num_channels": 64}, "SevenNet": {"model": {"channel": 16}}}
    values = {**vars(task.recipe), "peers": changed}
    task = task._replace(recipe=Recipe(**values))
    assert "--num_channels=64" in Mace(peers).command(task)
    assert SevenNet(peers).settings(task)["model"]["channel"] == 16
    assert SevenNet(peers).settings(task)["model"]["lmax"] == 2
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}) == {
        "a": {"b": 3, "c": 2},
        "d": 4,
    }


@pytest.mark.parametrize(
    ("speeds", "epochs"),
    [
        ([10.0, 10.0], [2, 60]),
        ([20.0, 10.0, 10.0], [2, 30, 60]),  # s an epoch; busy at the trial
        ([10.0, 20.0], [2, 60]),  # busy later
        ([20.0, 10.0, 5.0], [2, 30, 60]),  # repeated once only
    ],
)
def test_epochs_fill_the_time(task, speeds, epochs):
    class Fake:
        def __init__(self):
            self.tasks = []

        def show(self, text):
            pass

        def forget(self, task):
            assert task.folder == self.tasks[0].folder.parent

        def train(self, task):
            each = speeds[len(self.tasks)]
            self.tasks.append(task)
            curve = [Point(each * (i + 1), i + 1, 1.0, 1.0) for i in range(task.epochs)]
            return curve, Ended(0, 0.0, 0.0, 0.0, stopped=curve[-1].seconds > task.limit)

    fake = Fake()
    task, curve, _ = train_epochs(fake, task._replace(epochs=0, seconds=600.0, limit=780.0))
    assert [one.epochs for one in fake.tasks] == epochs
    assert task.epochs == epochs[-1] == len(curve)


def run(tmp_path, code, limit=60.0, place=None):
    lines = []
    ended = run_stamped(
        [sys.executable, "-c", code],
        tmp_path,
        tmp_path / "log.txt",
        place=place or Place(1),
        variables={"ANSWER": "42"},
        begins=lambda line: "begin" in line,
        ends=lambda line: "end" in line,
        limit=limit,
        show=lambda seconds, line: lines.append((seconds, line)),
    )
    return ended, lines


def test_lines_get_times(tmp_path):
    code = "import os, time; print(os.environ['ANSWER']); print('begin'); time.sleep(.2); print(3)"
    ended, lines = run(tmp_path, code)
    assert (ended.status, ended.stopped) == (0, False)
    assert [line for _, line in read_stamped(tmp_path / "log.txt")] == ["42", "begin", "3"]
    assert lines[0][0] == lines[1][0] == 0.0 < lines[2][0]


def test_a_training_is_stopped_at_the_limit(tmp_path):
    ended, _ = run(tmp_path, "import time; print('begin'); time.sleep(60)", limit=0.2)
    assert ended.stopped and ended.wall < 30
    ended, _ = run(tmp_path, "import time; print('begin\\nend'); time.sleep(.5)", limit=0.2)
    assert not ended.stopped and ended.status == 0


def test_a_closed_place_runs_nothing(tmp_path):
    place = Place(1)
    place.close()
    ended, _ = run(tmp_path, "import time; time.sleep(60)", place=place)
    assert ended.status < 0 and ended.wall < 30


def test_places_have_cores_of_their_own(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 5}, raising=False)
    assert [place.cores for place in places(1, 2)] == [(0,), (1,)]
    with pytest.raises(ValueError, match="need 4 cores, and there are 3"):
        places(2, 2)
    assert pinned(["x"], ()) == ["x"]


def test_predictions_of_our_model(tmp_path, small_model, monkeypatch):
    from ase.build import bulk
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    atoms = bulk("Si")
    atoms.rattle(0.1)
    labels = {"energy": 0.0, "forces": np.zeros((2, 3)), "stress": np.zeros(6)}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    write(tmp_path / "one.xyz", [atoms, atoms], format="extxyz")
    words = ["tesseral", str(small_model), "1", str(tmp_path), str(tmp_path / "one.xyz")]
    monkeypatch.setattr("sys.argv", ["predict", *words])
    predict.main()
    found = np.load(tmp_path / "one.npz")
    calculator, weights = calculators.tesseral(str(small_model))
    assert found["energy"].shape == (2,) and found["forces"].shape == (4, 3)
    np.testing.assert_allclose(
        found["stress"][1], calculator.get_stress(atoms), atol=1e-8, rtol=1e-4
    )
    assert json.loads((tmp_path / "info.json").read_text())["parameters"] == weights


def test_curve_of_teach_counts_all_its_steps(tmp_path):
    """Teacher 40 s, first potential 15 s, 10 of 100 s for labels; then two trainings."""
    histories = {
        "teacher": [(40.0, 9)],
        "first": [(7.0, 5), (15.0, 10)],
        "second": [(10.0, 4), (20.0, 8)],
        "last": [(0.0, 0), (5.0, 2)],
    }
    for name, history in histories.items():
        folder = tmp_path / "taught" / "trainings" / "runs" / name
        folder.mkdir(parents=True)
        entries = [
            {"elapsed": elapsed, "step": step, "energy_per_atom_mae": 1.0, "forces_mae": 2.0}
            for elapsed, step in history
        ]
        torch.save({"callbacks": {"FitRun": {"history": entries}}}, folder / "last.ckpt")
    (tmp_path / "taught" / "teach.json").write_text('{"time": "100s"}')
    lines = "".join(f"0.0\t{steps} steps an epoch\n" for steps in (5, 5, 4, 2))
    (tmp_path / LOG).write_text(lines)
    curve = Taught().curve(tmp_path)
    assert [point.seconds for point in curve] == [75.0, 85.0, 85.0, 90.0]
    assert [point.epochs for point in curve] == [1.0, 2.0, 2.0, 3.0]
