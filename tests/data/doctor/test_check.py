"""``train-potential data check``: files in, table, JSON and a cleaned copy out, exit status."""

import json

import ase.io
import numpy as np
import pytest

from tesseral.commands.main import main
from tesseral.data.doctor.check import CheckConfig, check
from tesseral.data.doctor.findings import Fix
from tesseral.data.doctor.mending import frame_rotation, mended
from tesseral.data.doctor.sample import read_sample
from tesseral.data.store.read import open_store, write_store
from tesseral.data.structures import atoms_from_structure


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Doubtful stresses would be compared with a potential that takes a minute to fit."""
    unknown = lambda structures: np.full((len(structures), 3, 3), np.nan)  # noqa: E731
    monkeypatch.setattr("tesseral.training.stresses.fitted_stresses", unknown)


@pytest.fixture
def wrong(sic, turned, tmp_path):
    """60 structures with two flipped stresses, one set of lost forces and a copy."""
    structures = list(sic[:60])
    hot = [row for row, s in enumerate(structures) if abs(s.stress).max() > 0.05][:2]
    for row in hot:
        structures[row] = structures[row]._replace(stress=-structures[row].stress)
    structures.append(turned(sic[9]))
    write_store(tmp_path / "wrong.h5", structures, attributes={"license": "none"})
    return tmp_path / "wrong.h5", hot


def test_a_cleaned_copy(wrong, sic, tmp_path, capsys):
    path, hot = wrong
    before = path.read_bytes()
    assert main(["data", "check", str(path)]) == 1
    assert "opposite sign" in capsys.readouterr().out
    report, copy = tmp_path / "found.json", tmp_path / "clean.h5"
    assert main(["data", "check", str(path), "--json", str(report), "--fix", str(copy)]) == 0
    print(capsys.readouterr().out)
    found = {f["check"]: f for f in json.loads(report.read_text())[0]["findings"]}
    assert found["stress sign"]["rows"] == hot
    assert found["duplicates"]["rows"] == [60]
    assert path.read_bytes() == before
    cleaned = open_store(copy)
    assert len(cleaned) == 60
    assert cleaned.attributes["license"] == "none"
    for row in (*hot, 5):
        np.testing.assert_allclose(cleaned[row].stress, sic[row].stress)
        assert cleaned[row].energy == sic[row].energy


def test_an_order_is_corrected_in_the_copy(sic, tmp_path, capsys):
    fix = Fix("stress", 1.0, components=(1, 2, 3, 6, 5, 4))
    write_store(tmp_path / "wrong.h5", [mended(s, fix) for s in sic[:80]])
    report, copy = tmp_path / "found.json", tmp_path / "clean.h5"
    arguments = [str(tmp_path / "wrong.h5"), "--json", str(report), "--fix", str(copy)]
    assert main(["data", "check", *arguments]) == 0
    print(capsys.readouterr().out)
    found = {f["check"]: f for f in json.loads(report.read_text())[0]["findings"]}
    assert found["stress order"]["fix"]["components"] == [1, 2, 3, 6, 5, 4]
    for one, right in zip(open_store(copy), sic[:80], strict=True):
        np.testing.assert_allclose(one.stress, right.stress)


def test_the_thorough_check(sic, tmp_path):
    """Faults too small for the linear model; the predictions of the better one are given."""
    apart = np.array([abs(s.stress[1, 2] - s.stress[0, 2]) for s in sic])
    rows = sorted(np.argsort(apart)[60:65].tolist())
    fix = Fix("stress", 1.0, components=(1, 2, 3, 5, 4, 6))
    wrong = [mended(s, fix) if k in rows else s for k, s in enumerate(sic)]
    write_store(tmp_path / "wrong.h5", wrong)
    asked = []

    def predict(structures, thorough):
        asked.append(thorough)
        assert all(np.isnan(s.stress).all() for s in structures)
        noise = 1e-4 * np.random.default_rng(0).normal(size=(len(sic), 3, 3))
        return np.stack([s.stress for s in sic]) + noise + noise.swapaxes(1, 2)

    config = CheckConfig(files=[str(tmp_path / "wrong.h5")], thorough=True)
    (checkup,) = check(config, predict=predict).checkups
    found = {f.check: f.rows for f in checkup.findings}
    print(found)
    assert asked == [True]
    assert list(found["stress order"]) == rows


@pytest.mark.parametrize("whole", [True, False])
def test_the_better_model_learns_forces_in_the_right_frame(sic, tmp_path, whole):
    """Forces in the frame of the triangular cell are turned, or left out, before it is fitted."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = [
        s._replace(
            positions=s.positions @ turn,
            cell=s.cell @ turn,
            forces=s.forces @ turn,
            stress=turn.T @ s.stress @ turn,
        )
        for s in sic
    ]
    wrong = list(turned)
    for k, one in enumerate(turned):
        if whole or k % 3 == 0:
            rotation = frame_rotation(one.cell, "lower")
            wrong[k] = one._replace(forces=one.forces @ rotation, config_type="turned")
    write_store(tmp_path / "wrong.h5", wrong)
    given = []

    def predict(structures, thorough):
        given.extend(structures)
        return np.stack([s.stress for s in turned])

    config = CheckConfig(files=[str(tmp_path / "wrong.h5")], thorough=True)
    (checkup,) = check(config, predict=predict).checkups
    print([finding.check for finding in checkup.findings])
    assert "forces frame" in [finding.check for finding in checkup.findings]
    used = [k for k, s in enumerate(given) if np.isfinite(s.forces).all()]
    assert len(used) > 0.8 * len(given)
    off = [np.abs(given[k].forces - turned[k].forces).max() for k in used]
    size = [np.abs(given[k].forces).max() for k in used]
    bad = [k for k in range(len(used)) if off[k] > 0.1 * size[k] + 1e-6]
    print(f"{len(used)} used, {len(bad)} with forces in the wrong frame")
    assert len(bad) < 0.1 * len(used)


def test_the_thorough_check_needs_a_model(small_store):
    with pytest.raises(ValueError, match="pass `predict`"):
        check(CheckConfig(files=[str(small_store)], thorough=True))


def test_extended_xyz(sic, tmp_path, capsys):
    atoms = [atoms_from_structure(s) for s in sic[:30]]
    ase.io.write(tmp_path / "set.extxyz", atoms)
    assert main(["data", "check", str(tmp_path / "set.extxyz")]) == 0
    assert "30 structures" in capsys.readouterr().out


def test_two_files(sic, tmp_path, capsys):
    write_store(tmp_path / "a.h5", sic[:30])
    write_store(tmp_path / "b.h5", sic[28:34])
    checkups = check(CheckConfig(files=[str(tmp_path / f"{x}.h5") for x in "ab"])).checkups
    leaks = [f.rows for f in checkups[1].findings if f.check == "leakage"]
    print(checkups[1].findings)
    assert leaks == [(0, 1)]


def test_a_sample_of_a_large_set(sic, tmp_path):
    write_store(tmp_path / "a.h5", sic)
    sample = read_sample(open_store(tmp_path / "a.h5"), 400)
    print(len(sample.rows), sample.n_atoms.sum())
    assert 40 < len(sample.rows) < 60
    assert not sample.complete


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fix", "clean.txt"], "must end in .h5"),
        (["--split", "magic"], "not one of auto"),
        (["--cutoff", "-1"], "it must be positive"),
        (["--jason", "a"], "did you mean --json"),
    ],
)
def test_wrong_options(small_store, arguments, words, capsys):
    with pytest.raises(SystemExit) if "--jason" in arguments else _nothing():
        assert main(["data", "check", str(small_store), *arguments]) == 2
    assert words in capsys.readouterr().err


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_no_such_file(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "no.h5")]) == 2
    assert main(["data", "check", str(tmp_path / "no.extxyz")]) == 2
    assert "no.extxyz" in capsys.readouterr().err


def test_an_existing_copy_is_not_replaced(small_store, capsys):
    assert main(["data", "check", str(small_store), "--fix", str(small_store)]) == 2
    assert "exists" in capsys.readouterr().err
