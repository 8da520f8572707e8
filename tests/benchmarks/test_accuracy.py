"""The accuracy suite without any peer: recipes, splits, times, results, tables, the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from benchmarks.accuracy import __main__ as suite
from benchmarks.accuracy.curves import Point, compare, epochs_that_fit, first_time
from benchmarks.accuracy.errors import errors, profile
from benchmarks.accuracy.recipes import FOLDER, Recipe, all_recipes, parse_recipe, read_recipe
from benchmarks.accuracy.results import find_results, folder_of, gather, wanted, write_result
from benchmarks.accuracy.structures import split, write_files
from benchmarks.accuracy.summary import write_summary
from benchmarks.accuracy.train import Setting
from benchmarks.peers.environments import Peers
from benchmarks.sheets import console

CURVE = [Point(10.0, 1, 50.0, 200.0), Point(20.0, 2, 5.0, 120.0), Point(30.0, 3, 6.0, 80.0)]


def recipe(**changes):
    values = {"name": "X", "train": "x/train.xyz", "validation": 2, "tests": {"test": "x/test.xyz"}}
    return Recipe(**{**values, "minutes": 1.0, **changes})


def write_frames(path, number, *, stress=False):
    """Perturbed dimers in a box with made-up labels."""
    generator = np.random.default_rng(0)
    frames = []
    for _ in range(number):
        atoms = Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]], cell=[9] * 3, pbc=True)
        atoms.positions += generator.normal(scale=0.1, size=(2, 3))
        results = {"energy": -9.0 + generator.normal(), "forces": generator.normal(size=(2, 3))}
        results |= {"stress": generator.normal(size=6)} if stress else {}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, frames, format="extxyz")


def result_of(name, program, curve=CURVE, forces=80.0, seed=0):
    found = {"energy_mae": 6.0, "forces_mae": forces, "forces_rmse": 2 * forces, "energy_rmse": 8.0}
    found |= {"molecule_energy_mae": 60.0, "molecule_energy_rmse": 80.0}
    return {
        "program": program,
        "seed": seed,
        "clock": "wall",
        "set": name,
        "minutes": 1.0,
        "threads": 1,
        "seconds": 30.0,
        "epochs": 3,
        "structures_seen": 60,
        "atoms_per_s": 100.0,
        "parameters": 20146,
        "stopped": False,
        "process": {"cpu": 33.0, "wall": 40.0, "peak_mb": 500.0},
        "curve": [point._asdict() for point in curve],
        "errors": {"validation": found, "test": found},
        "profiles": {"path": [[0.0, 1.0], [0.0, 100.0], [5.0, 90.0]]},
        "machine": {"processor": "one"},
    }


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_valid(path):
    found = read_recipe(path)
    assert found.tests
    assert found in all_recipes().values()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minuts": 3}, "did you mean minutes"),
        ({"published": [{"method": "A", "source": "B", "tset": {}}]}, "did you mean test"),
        (
            {"published": [{"method": "A", "source": "B", "test": {"force_mae": 1}}]},
            "did you mean forces_mae",
        ),
        ({"published": [{"method": "A"}]}, "'source' is missing in"),
        ({"peers": {"Mace": {}}}, "did you mean MACE"),
        ({"profiles": {"path": {"files": "x"}}}, "did you mean file"),
        ({"validation": 0}, "1 or more"),
        ({"groups": {"train": ["a"], "validation": ["b"]}}, "remove one"),
        ({"validation": 0, "groups": {"train": ["a"]}}, "no validation"),
        ({"groups": {"trian": ["a"]}}, "did you mean train"),
        ({"minutes": 0}, "positive"),
    ],
)
def test_wrong_recipes_are_refused(changes, message):
    values = {"name": "X", "train": "a", "validation": 2, "tests": {"test": "b"}, "minutes": 1}
    assert parse_recipe(values) == recipe(train="a", tests={"test": "b"}, minutes=1)
    with pytest.raises(ValueError, match=message):
        parse_recipe({**values, **changes})
    with pytest.raises(ValueError, match="'train' is missing"):
        parse_recipe({"name": "X"})


def test_splits_are_the_same_each_time_and_do_not_overlap():
    fit, validation = split(100, 10, seed=0)
    assert (fit, validation) == split(100, 10, seed=0)
    assert validation != split(100, 10, seed=1)[1]
    assert len(validation) == 10
    assert sorted(fit + validation) == list(range(100))
    with pytest.raises(ValueError, match="ask for fewer"):
        split(10, 10, seed=0)


def test_some_structures_are_not_used_when_fewer_are_requested():
    fit, validation = split(100, 10, seed=0, structures=60)
    assert validation == split(100, 10, seed=0)[1]
    assert len(fit) == 60 and not {*fit} & {*validation}
    with pytest.raises(ValueError, match="leave 90 of 100 to fit"):
        split(100, 10, seed=0, structures=91)


def test_groups_divide_a_file(tmp_path):
    write_frames(tmp_path / "x.xyz", 6)
    frames = read(tmp_path / "x.xyz", ":")
    for frame, group in zip(frames, ["a/1", "a/2", "b/1", "c/1", "c/1", "d/1"], strict=True):
        frame.info["group"] = group
    write(tmp_path / "x.xyz", frames, format="extxyz")
    groups = {"train": ("a", "b"), "validation": ("d",), "test": ("c",)}
    one = recipe(train="x.xyz", tests={"test": "x.xyz"}, validation=0, groups=groups)
    files = write_files(one, tmp_path, tmp_path / "out")
    found = [
        [frame.info["group"] for frame in read(path, ":")]
        for path in (files.fit, files.validation, files.tests["test"])
    ]
    assert found == [["a/1", "a/2", "b/1"], ["d/1"], ["c/1", "c/1"]]
    with pytest.raises(ValueError, match=r"x\.xyz has no structure of a group e"):
        write_files(replace(one, groups={**groups, "test": ("e",)}), tmp_path, tmp_path / "out")


def test_files_carry_the_labels_of_all_programs(tmp_path):
    write_frames(tmp_path / "x/train.xyz", 7, stress=True)
    write_frames(tmp_path / "x/test.xyz", 3, stress=True)
    files = write_files(recipe(stress=True), tmp_path, tmp_path / "out")
    assert (files.structures, files.atoms, files.elements) == (5, 10, ("Si",))
    frame = read(files.fit, 0)
    assert frame.info["REF_energy"] == pytest.approx(frame.get_potential_energy())
    np.testing.assert_allclose(frame.arrays["REF_forces"], frame.get_forces())
    np.testing.assert_allclose(frame.info["REF_stress"], frame.get_stress(), atol=1e-12)
    files = write_files(recipe(), tmp_path, tmp_path / "out")
    assert "stress" not in read(files.fit, 0).calc.results


def test_errors_and_profiles(tmp_path):
    path, found = tmp_path / "x.xyz", tmp_path / "x.npz"
    write_frames(path, 2, stress=True)
    frames = read(path, ":")
    energy = np.array([frame.get_potential_energy() for frame in frames])
    forces = np.concatenate([frame.get_forces() for frame in frames])
    stress = np.array([frame.get_stress() for frame in frames])
    np.savez(found, energy=energy + [0.002, -0.004], forces=forces - 0.1, stress=stress + 0.01)
    values = errors(path, found)
    assert values["energy_mae"] == pytest.approx(1.5)
    assert values["molecule_energy_mae"] == pytest.approx(3.0)
    assert values["forces_rmse"] == pytest.approx(100.0)
    assert values["stress_mae"] == pytest.approx(1.6021766, rel=1e-6)
    where, dft, predicted = profile(path, found, None)
    assert where == [0.0, 1.0] and min(dft) == 0.0
    wrong = np.subtract(predicted, dft)  # both relative to the lowest structure of DFT
    assert wrong[dft.index(0.0)] == 0.0
    assert abs(wrong.sum()) == pytest.approx(6.0)
    np.savez(found, energy=energy * np.nan, forces=forces, stress=stress)
    with pytest.raises(ValueError, match="not finite"):
        errors(path, found)


def test_time_to_reach_an_error():
    assert first_time(CURVE, "forces", 120.0) == 20.0
    assert first_time(CURVE, "forces", 119.9) == 20.0  # rounding
    assert first_time(CURVE, "forces", 100.0) == 30.0
    assert first_time(CURVE, "energy", 1.0) is None
    peer = [Point(100.0, 1, 9.0, 150.0), Point(200.0, 2, 5.0, 110.0)]
    energy, forces = compare(CURVE, peer, {"energy": 5.0, "forces": 110.0})
    assert (energy.peer, energy.ours, energy.share) == (200.0, 20.0, 0.1)
    assert (forces.peer, forces.ours, forces.share) == (200.0, 30.0, 0.15)
    assert compare(CURVE, peer, {"energy": 0.1, "forces": 1.0})[0].share is None


def test_epochs_that_fit():
    trial = [Point(15.0, 1, 1.0, 1.0), Point(25.0, 2, 1.0, 1.0)]
    assert epochs_that_fit(trial, 600.0) == 59  # 15 s and 58 times 10 s
    assert epochs_that_fit(trial, 1.0) == 1
    with pytest.raises(ValueError, match="2 are needed"):
        epochs_that_fit(trial[:1], 600.0)


def test_results_are_taken_over_unless_they_differ(tmp_path):
    setting = Setting(minutes=1.0, threads=1)
    program = suite.Ours()
    one = recipe(fit={"seed": 3})
    done, missing = find_results(tmp_path, [(one, setting)], [program], again=False)
    assert (done, len(missing)) == ([], 1)
    kept = {**result_of("X", "tesseral"), "wanted": wanted(one, setting, program)}
    write_result(folder_of(tmp_path, one, program.name), kept)
    done, missing = find_results(tmp_path, [(one, setting)], [program], again=False)
    assert (len(done), missing) == (1, [])
    assert gather(tmp_path, [one])[0]["epochs"] == 3
    assert len(find_results(tmp_path, [(one, setting)], [program], again=True)[1]) == 1
    for other, changed in (
        (one, replace(setting, minutes=2.0)),
        (one, replace(setting, extra=["--seed", "1"])),
        (one, replace(setting, clock="cpu")),
        (replace(one, fit={}), setting),
    ):
        with pytest.raises(ValueError, match="--again"):
            find_results(tmp_path, [(other, changed)], [program], again=False)


def test_tables_and_figures(tmp_path, capsys):
    published = [{"method": "Other", "source": "a paper", "test": {"forces_mae": 70}}]
    one = parse_recipe(
        {
            **{"name": "X", "train": "a", "validation": 2, "tests": {"test": "b"}, "minutes": 1},
            "published": published,
            "profiles": {"path": {"file": "p"}},
        }
    )
    slow = [Point(300.0, 1, 8.0, 120.0)]
    every = [result_of("X", "tesseral"), result_of("X", "MACE", slow, forces=120.0)]
    write_summary(every, {"X": one}, tmp_path, ["command"], console())
    text = (tmp_path / "accuracy.md").read_text(encoding="utf-8")
    assert "| tesseral | 6.00 / 8.00 | 60.0 / 80.0 | 80.0 / 160 |" in text
    assert "| 3.00 | 60.0 | 100 | 0.825 | 500 |" in text
    assert "| Other, a paper | – | – | 70.0 / – |" in text
    assert "| X MACE | forces | 120 | 300 | 20.0 | 6.7% |" in text
    assert "| tesseral | 7.50 / 10.0 |" in text  # of the profile
    assert len(json.loads((tmp_path / "accuracy.json").read_text())["results"]) == 2
    for name in ("X_time.png", "X_path.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_each_seed_has_its_own_folder_and_peers_have_one(tmp_path):
    one, ours, peer = recipe(), suite.Ours(), suite.Mace(Peers(tmp_path, tmp_path))
    settings = [Setting(minutes=1.0, threads=1, seed=seed) for seed in range(12)]
    jobs = [(one, setting) for setting in settings]
    missing = find_results(tmp_path, jobs, [ours, peer], again=False)[1]
    assert [job[2].name for job in missing].count("MACE") == 1
    assert len(missing) == 13
    for setting in settings[:11]:
        kept = result_of("X", "tesseral", seed=setting.seed)
        kept |= {"wanted": wanted(one, setting, ours)}
        write_result(folder_of(tmp_path, one, ours.name, setting.seed), kept)
    missing = find_results(tmp_path, jobs, [ours], again=False)[1]
    assert [job[1].seed for job in missing] == [11]
    assert [result["seed"] for result in gather(tmp_path, [one])] == list(range(11))


def test_means_over_seeds(tmp_path):
    every = [result_of("X", "tesseral", forces=70.0 + 2 * seed, seed=seed) for seed in range(3)]
    every.append(result_of("X", "MACE", forces=120.0))
    write_summary(every, {"X": recipe()}, tmp_path, ["command"], console())
    text = (tmp_path / "accuracy.md").read_text(encoding="utf-8")
    assert "| tesseral, seed 2 | 6.00 / 8.00 |" in text
    assert "mean of 3 seeds | 6.00 ± 0.0 / 8.00 ± 0.0 |" in text
    assert "| 72.0 ± 2.0 / 144 ± 4.0 |" in text
    assert text.index("mean of 3") < text.index("| MACE |")
    means = json.loads((tmp_path / "accuracy.json").read_text())["means"]
    assert means[0]["seeds"] == [0, 1, 2]
    assert means[0]["errors"]["test"]["forces_mae"] == {"mean": 72.0, "deviation": 2.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Si", "--data", "nowhere"], "give the folder of the data with --data"),
        (["Sii"], "there is no set Sii; there are Si, Mo, Li, Cu, Ni, AcAc, aspirin, water"),
        (["Si", "Si"], "given twice"),
        (["none.yaml"], "none.yaml"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(words, message, capsys):
    assert suite.main(words) == 2
    assert message in capsys.readouterr().err


def test_wrong_numbers_are_refused(capsys):
    for words in (["--minutes", "0"], ["--threads", "0"], ["--parallel", "-1"]):
        with pytest.raises(SystemExit):
            suite.parse(words)
        assert "must be" in capsys.readouterr().err


def test_peers_that_are_not_there(tmp_path, capsys):
    peers = Peers(tmp_path, tmp_path)
    assert [one.name for one in suite.choose_programs(peers, [], console())] == ["tesseral"]
    assert "benchmarks.peers install" in capsys.readouterr().out
    with pytest.raises(ValueError, match="benchmarks.peers install"):
        suite.choose_programs(peers, ["MACE"], console())
    with pytest.raises(ValueError, match="there is no program Mace"):
        suite.choose_programs(peers, ["Mace"], console())


@pytest.mark.slow
def test_from_the_command_line_with_ours_alone(tmp_path, third_party_data, capsys):
    for name, number in (("train", 12), ("test", 3)):
        frames = read(third_party_data / "mlearn" / f"Si_{name}.extxyz", f":{number}")
        (tmp_path / "mlearn").mkdir(exist_ok=True)
        write(tmp_path / "mlearn" / f"Si_{name}.extxyz", frames, format="extxyz")
    values = yaml.safe_load((FOLDER / "si.yaml").read_text(encoding="utf-8"))
    values |= {"name": "Few", "validation": 2, "fit": {"trainer": {"validate_every": 10}}}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    words = [str(tmp_path / "few.yaml"), "--only", "tesseral", "--data", str(tmp_path)]
    words += ["--minutes", "0.1", "--output", str(tmp_path / "out")]
    assert suite.main([*words, "--", "--model.channels", "4"]) == 0
    found = json.loads((tmp_path / "out/Few/tesseral/result.json").read_text())
    assert found["curve"][-1]["seconds"] == pytest.approx(6.0, abs=3.0)
    assert found["epochs"] > 1
    validation = found["errors"]["validation"]["forces_mae"]
    assert validation == pytest.approx(min(p["forces"] for p in found["curve"]), rel=0.2)
    capsys.readouterr()
    assert suite.main([*words, "--", "--model.channels", "4"]) == 0
    assert "trained already" in capsys.readouterr().out
    assert suite.main(words) == 2
    assert "--again" in capsys.readouterr().err
